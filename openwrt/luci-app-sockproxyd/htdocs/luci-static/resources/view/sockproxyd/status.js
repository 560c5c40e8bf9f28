'use strict';
'require dom';
'require view';
'require sockproxyd.check as check';

/* Longest tables that are shown. A browser takes seconds for thousands of rows. */
const MAX_ROWS = 500;

function bytes(count) {
	return '%1024.1mB'.format(count);
}

function seconds(count) {
	return '%t'.format(Math.floor(count));
}

function orDash(value) {
	return (value == null || value === '') ? '–' : String(value);
}

/* Columns of text of any length, which wraps. */
const WIDE = { wraps: true };

/* Each table: its columns, with the title, what is shown, and how: the whole number that sorts, if that differs, or WIDE. */
const CONNECTIONS = [
	[ _('ID'), c => c.id ],
	[ _('State'), c => c.heal && c.heal.losses ? _('%s (lost %d times)').format(c.state, c.heal.losses) : c.state ],
	[ _('Client'), c => c.client ],
	[ _('Target'), c => orDash(c.target), WIDE ],
	[ _('Protocol'), c => [ c.protocol, c.tls, c.subprotocol ].filter(word => word).join(', ') ],
	[ _('Received'), c => bytes(c.received), { sorts: c => c.received } ],
	[ _('Sent'), c => bytes(c.sent), { sorts: c => c.sent } ],
	[ _('Idle'), c => seconds(c.idle), { sorts: c => Math.floor(c.idle) } ],
	[ _('Age'), c => seconds(c.uptime), { sorts: c => Math.floor(c.uptime) } ],
	[ _('Notifies'), c => orDash(c.notify), WIDE ],
	[ _('Last notification'), c => orDash(c.notification) ]
];

const LISTENERS = [
	[ _('Address'), l => l.address ],
	[ _('Leads to'), l => l.owners ? _('plugins (%s)').format(l.protocol) : (l.target || _('setup mode')), WIDE ],
	[ _('Path'), l => orDash(l.path), WIDE ],
	[ _('Owners'), l => orDash((l.owners || []).map(o => '%s %s (%d)'.format(o.id, o.path || '*', o.waiting)).join(', ')), WIDE ]
];

const ENDED = [
	[ _('ID'), e => e.id ],
	[ _('Ended'), e => _('%s ago').format(seconds(e.ago)), { sorts: e => Math.floor(e.ago) } ],
	[ _('Target'), e => orDash(e.target), WIDE ],
	[ _('Protocol'), e => e.protocol ],
	[ _('Reason'), e => e.reason, WIDE ]
];

/* Returns an empty table with the titles of these columns. LuCI remembers under its id how it is sorted. */
function table(id, columns) {
	return E('table', { 'id': id, 'class': 'table' }, [
		E('tr', { 'class': 'tr table-titles' }, columns.map(column => E('th', { 'class': 'th' }, column[0])))
	]);
}

/* Fills a table. What comes from the proxy is text, never HTML: names of devices are in it. */
function fill(node, columns, list, placeholder) {
	cbi_update_table(node, list.slice(0, MAX_ROWS).map(item => columns.map(([ , show, how ]) => {
		const style = (how && how.wraps) ? 'word-break:break-word' : 'white-space:nowrap';
		const cell = E('span', { 'style': style }, [ document.createTextNode(show(item)) ]);

		return (how && how.sorts) ? [ how.sorts(item), cell ] : cell;
	})), E('em', placeholder));
}

/* Returns a table of two columns: names and values. */
function facts(list) {
	return E('table', { 'class': 'table' }, list.map(([ name, value ]) => E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '33%' }, name),
		E('td', { 'class': 'td left' }, [ value ])
	])));
}

/* Returns a bar of what is used of a limit. */
function bar(used, limit, shown) {
	return E('div', {
		'class': 'cbi-progressbar',
		'title': '%s / %s (%.1f%%)'.format(shown(used), shown(limit), limit ? 100 * used / limit : 0)
	}, E('div', { 'style': 'width:%.2f%%'.format(limit ? 100 * used / limit : 0) }));
}

return view.extend({
	load() {
		return Promise.all([ check.status(), check.load() ]);
	},

	/* Shows a status. A proxy that does not answer leaves the last one, below a warning. */
	update(status) {
		const answers = (status && status.connections != null);

		dom.content(this.warning, answers ? [] : E('div', { 'class': 'alert-message warning' }, [
			E('p', this.known ? _('The proxy does not answer. What is shown is old.') : _('The proxy does not answer.')),
			status && status.error ? E('p', {}, [ E('code', {}, [ document.createTextNode(status.error) ]) ]) : null
		]));

		if (!answers)
			return;

		this.known = true;
		this.content.style.display = '';

		const n = status.notifications;

		dom.content(this.overview, facts([
			[ _('Version'), '%s (%d)'.format(status.version, status.build) ],
			[ _('Running for'), seconds(status.uptime) ],
			[ _('Connections'), bar(status.connections.length, status.limits.connections, String) ],
			[ _('Memory held'), bar(status.buffered, status.limits.buffers, bytes) ],
			[ _('History held'), bytes(status.history) ],
			[ _('Connections accepted'), String(status.accepted) ],
			[ _('Connections refused'), String(status.refused) ]
		]));
		dom.content(this.notifications, facts([
			[ _('Sent'), String(n.sent) ],
			[ _('Delivered'), String(n.delivered) ],
			[ _('Failed'), String(n.failed) ],
			[ _('Retried'), String(n.retried) ],
			[ _('Dropped'), String(n.dropped) ],
			[ _('Pending'), String(n.pending) ],
			[ _('Latency of Luup'), n.latency == null ? '–' : '%d ms'.format(1000 * n.latency) ]
		]));
		fill(this.connections, CONNECTIONS, status.connections, _('There are no connections.'));
		this.more.textContent = (status.connections.length > MAX_ROWS)
			? _('The first %d of %d connections.').format(MAX_ROWS, status.connections.length) : '';
		fill(this.listeners, LISTENERS, status.listeners, _('There are no listeners.'));
		fill(this.ended, ENDED, status.ended, _('No connection has ended yet.'));
	},

	render([ status, checked ]) {
		const section = (title, ...content) => E('div', { 'class': 'cbi-section' }, [ E('h3', title), ...content ]);

		this.warning = E('div');
		this.overview = E('div');
		this.notifications = E('div');
		this.connections = table('connections', CONNECTIONS);
		this.more = E('p');
		this.listeners = table('listeners', LISTENERS);
		this.ended = table('ended', ENDED);
		/* Nothing of it is known before the proxy has answered. */
		this.content = E('div', { 'style': 'display:none' }, [
			section(_('Overview'), this.overview),
			section(_('Notifications'), this.notifications),
			section(_('Connections'), this.connections, this.more),
			section(_('Listeners'), this.listeners),
			section(_('Last ends of connections'), this.ended)
		]);
		this.update(status);

		const node = E([], [ E('h2', _('Socket Proxy')), check.warning(checked), this.warning, this.content ]);

		check.watch(checked, answer => this.update(answer));

		return node;
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
