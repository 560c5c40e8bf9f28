'use strict';
'require baseclass';
'require dom';
'require poll';
'require rpc';
'require uci';

const callCheck = rpc.declare({
	object: 'sockproxyd',
	method: 'check',
	expect: { '': {} }
});

const callStatus = rpc.declare({
	object: 'sockproxyd',
	method: 'status',
	expect: { '': {} }
});

/* Returns whether a listener of /etc/config/sockproxyd is enabled: whatever the init script does not take for off. */
function isEnabled(section) {
	return ![ '0', 'off', 'false', 'no', 'disabled' ].includes(section.enabled);
}

/* What the daemon says of the saved configuration. It knows more than the forms, which check field by field. */
return baseclass.extend({
	load() {
		return Promise.all([
			L.resolveDefault(callCheck(), {}),
			L.resolveDefault(uci.changes(), {}),
			L.resolveDefault(uci.load('sockproxyd'))
		]).then(([ check, changes ]) => {
			/* What is saved in LuCI and not applied yet, no proxy has. A wrong configuration has its own warning. */
			const applied = (check.valid && !(changes && changes.sockproxyd));
			const listeners = applied ? [ 'direct', 'serve' ].flatMap(type => uci.sections('sockproxyd', type)) : [];

			return { ...check, ports: listeners.filter(isEnabled).map(listener => Number(listener.port)) };
		});
	},

	status() {
		return L.resolveDefault(callStatus(), {});
	},

	/* Returns the warnings for the top of a page, an element that may be empty. */
	warning(check) {
		this.closed = E('div');

		return E('div', {}, [ this.invalid(check), this.closed ]);
	},

	invalid(check) {
		if (!check.text)
			return E('div');

		return E('div', { 'class': 'alert-message warning' }, [
			E('p', check.valid ? _('The saved configuration names something that cannot be used:')
				: _('The saved configuration has an error. A proxy that runs keeps the previous one, and none can start with it:')),
			E('pre', {}, [ document.createTextNode(check.text) ])
		]);
	},

	/* Has a page, whose warning is shown, ask for the status every few seconds, and call a function with it, which tells of a
	   proxy that does not answer. Without a function it asks until nothing is missing: each time takes lines of the log. */
	watch(check, update) {
		const ask = () => this.status().then(status => {
			this.compare(check, status, !update);

			if (update)
				update(status);
			else if (status.listeners && !this.missing.length)
				poll.remove(ask);
		});

		poll.add(ask);
	},

	/* Warns of saved ports on which the proxy does not listen, and, if asked to, of a proxy that does not answer. What is missing
	   once may be new: the proxy takes a moment after Save & Apply. */
	compare(check, status, silence) {
		const open = (status.listeners || []).filter(listener => listener.target).map(listener => Number(listener.address.replace(/^.*:/, '')));
		const missing = status.listeners ? check.ports.filter(port => !open.includes(port)) : [];
		const ports = missing.filter(port => (this.missing || []).includes(port));
		const silent = (silence && check.valid && !status.listeners);
		let text;

		if (ports.length)
			text = _('The proxy cannot listen on: %s. The port may be in use already. The system log says why.').format(ports.join(', '));
		else if (silent && this.silent)
			text = _('The proxy does not answer. It cannot start if another program has its port for plugins. The system log says so.');

		this.missing = missing;
		this.silent = silent;
		dom.content(this.closed, text ? E('div', { 'class': 'alert-message warning' }, [ E('p', text) ]) : []);
	}
});
