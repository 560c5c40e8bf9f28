'use strict';
'require form';
'require uci';
'require view';
'require sockproxyd.check as check';
'require sockproxyd.settings as settings';

/* The settings are in sockproxyd/settings.js, which has what the daemon knows. A section of /etc/config/sockproxyd has
   the name and the options of a section of the daemon's configuration. */

const TABS = [
	[ 'host', _('General') ],
	[ 'limits', _('Limits') ],
	[ 'tls', _('TLS') ],
	[ 'status', _('Status port') ]
];

/* Returns whether a syntax is that of a list. */
function isList(syntax) {
	return [ 'networks', 'hosts', 'names' ].includes(syntax) || syntax.endsWith('[,...]');
}

/* Returns the words of an option, whether it is a list or a text with commas or blanks. */
function words(value) {
	return L.toArray(value).join(' ').split(/[\s,]+/).filter(word => word != '');
}

function validateUrl(section_id, value) {
	return (value == '' || /^https?:\/\/[^\s\/]+\S*$/i.test(value)) || _('Expecting: %s').format(_('valid URL'));
}

function validatePin(section_id, value) {
	return (value == '' || /^(verify|none|sha256\/[0-9a-f]{64})$/i.test(value)) ||
		_('Expecting: %s').format(_('verify, none, or sha256/ and 64 hexadecimal digits'));
}

/* Adds the field of a setting. An empty field leaves the daemon's default, which the field shows. */
function addSetting(s, setting) {
	const title = setting.unit ? '%s (%s)'.format(setting.title, setting.unit) : setting.title;
	/* With the name of the option, by which other descriptions and the documents call it. */
	const help = '<code>%s</code>: %s'.format(setting.name, setting.help);
	let o;

	if (setting.syntax == 'on|off') {
		o = s.option(form.ListValue, setting.name, title, help);
		o.value('', setting.fallback == 'on' ? _('default (on)') : _('default (off)'));
		o.value('1', _('on'));
		o.value('0', _('off'));
		o.cfgvalue = function(section_id) {
			const value = uci.get('sockproxyd', section_id, setting.name);

			return [ '', null, undefined ].includes(value) ? '' :
				[ 'on', 'yes', 'true', '1', 'enabled' ].includes(String(value).toLowerCase()) ? '1' : '0';
		};
	}
	else if (isList(setting.syntax)) {
		o = s.option(form.DynamicList, setting.name, title, help);
		o.cfgvalue = function(section_id) {
			return words(uci.get('sockproxyd', section_id, setting.name));
		};
	}
	else {
		o = s.option(form.Value, setting.name, title, help);
	}

	if (setting.syntax != 'on|off') {
		(setting.choices || []).forEach(choice => o.value(choice));
		o.placeholder = setting.fallback;
	}

	if (setting.datatype)
		o.datatype = setting.datatype;

	if (setting.syntax == 'url')
		o.validate = validateUrl;
	else if (setting.syntax.includes('sha256/'))
		o.validate = validatePin;

	o.optional = true;
	o.rmempty = true;
}

return view.extend({
	load() {
		const loaded = uci.load('sockproxyd').then(() => {
			/* What is added here is local until something is saved. */
			[ [ 'sockproxyd', 'main' ], ...TABS ].forEach(([ type, name ]) => {
				if (!uci.sections('sockproxyd', type).length)
					uci.add('sockproxyd', type, type == 'sockproxyd' ? name : type);
			});

			/* Settings in the place where releases before the section "host" had them. */
			const host = uci.sections('sockproxyd', 'host')[0]['.name'];

			Object.entries({ address: 'ip', port: 'port', vera: 'vera', log: 'log', debug: 'debug' }).forEach(([ from, to ]) => {
				const value = uci.get('sockproxyd', 'main', from);

				if (value == null)
					return;

				if (uci.get('sockproxyd', host, to) == null)
					uci.set('sockproxyd', host, to, value);

				uci.unset('sockproxyd', 'main', from);
			});
		});

		return Promise.all([ check.load(), loaded ]);
	},

	render([ checked ]) {
		const m = new form.Map('sockproxyd', _('Socket Proxy'),
			_('Does the socket work of Luup plugins. An empty field leaves the default, which it shows.'));
		let s, o;

		m.tabbed = true;

		s = m.section(form.TypedSection, 'sockproxyd', _('Service'));
		s.anonymous = true;
		o = s.option(form.Flag, 'enabled', _('Enabled'), _('Start the proxy, now and at every boot.'));
		o.default = '1';
		o.rmempty = false;
		o = s.option(form.Flag, 'jail', _('Jail'), _('Let the proxy see only the files that it needs.'));
		o.default = '1';
		o = s.option(form.DynamicList, 'jail_mount', _('Files in the jail'),
			_('Further files and folders that the proxy may read, besides those in /etc and /tmp.'));
		o.datatype = 'file';
		o.depends('jail', '1');

		TABS.forEach(([ type, title ]) => {
			s = m.section(form.TypedSection, type, title);
			s.anonymous = true;

			if (type == 'host') {
				o = s.option(form.Value, 'interface', _('Interface'),
					_('Listen on the first IPv4 address of this interface of OpenWrt instead of an address.'));
				o.datatype = 'uciname';
				o.placeholder = 'lan';
				o.optional = true;
			}

			settings.sections[type].forEach(setting => addSetting(s, setting));
		});

		return m.render().then(node => E([], [ check.warning(checked), node ]));
	}
});
