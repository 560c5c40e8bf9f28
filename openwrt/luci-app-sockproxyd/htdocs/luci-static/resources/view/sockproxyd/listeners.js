'use strict';
'require form';
'require view';
'require sockproxyd.check as check';

/* On a page of its own: LuCI drops what is unsaved elsewhere on a page when a dialog is saved. */

/* Adds the list of a type of sections that each are a line of the daemon's configuration. */
function addListeners(m, type, title, help) {
	const s = m.section(form.GridSection, type, title, help);
	let o;

	s.anonymous = true;
	s.addremove = true;
	s.sortable = true;
	s.nodescriptions = true;
	s.modaltitle = title;

	o = s.option(form.Flag, 'enabled', _('Enabled'));
	o.default = '1';
	o.editable = true;
	o.rmempty = false;

	o = s.option(form.Value, 'port', _('Port'));
	o.datatype = 'and(port,min(1))';
	o.rmempty = false;

	return s;
}

/* Adds the target and its options, which are those of the command CONN. The daemon checks them. */
function addTarget(s, placeholder, example) {
	let o;

	o = s.option(form.Value, 'target', _('Target'), _('host:port, or a URL that begins with ws:// or wss://'));
	o.placeholder = placeholder;
	o.rmempty = false;
	o.validate = (section_id, value) => /^\S+$/.test(value) || _('Expecting: %s').format(_('a target without blanks'));

	o = s.option(form.DynamicList, 'option', _('Options'), _('Options of the command CONN, such as %s').format('<code>%s</code>'.format(example)));
	o.placeholder = example;
	o.validate = (section_id, value) => /^(\w+=\S*)?$/.test(value) || _('Expecting: %s').format(_('NAME=value'));
}

/* Adds an option of a WebSocket port to the dialog, not to the list. */
function addRequestOption(s, kind, name, title, help) {
	const o = s.option(kind, name, title, help);

	o.modalonly = true;
	o.optional = true;

	return o;
}

return view.extend({
	load() {
		return check.load();
	},

	render(checked) {
		const m = new form.Map('sockproxyd', _('Socket Proxy'), _('Ports that lead to a target, each without a plugin.'));
		let s, o;

		m.tabbed = true;

		s = addListeners(m, 'direct', _('Direct listeners'),
			_('Ports on which a connection leads straight to a target, without setup mode.'));
		addTarget(s, 'mail.example.com:25', 'NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0');

		s = addListeners(m, 'serve', _('WebSocket ports'),
			_('Ports on which a page in a browser reaches a target through a WebSocket.'));
		o = s.option(form.Value, 'path', _('Path'), _('Path of the requests. Empty: any that no other entry of the port has.'));
		o.placeholder = '/amplifier';
		o.validate = (section_id, value) => /^(\/\S*)?$/.test(value) || _('Expecting: %s').format(_('a path that begins with /'));
		addTarget(s, '192.168.0.15:23', 'PRTO=udp');

		o = addRequestOption(s, form.DynamicList, 'orig', _('Origins'),
			_('Origins of the pages that may connect. * stands for any characters but /, and alone for every origin. Empty: pages of the same host and port.'));
		o.placeholder = 'http://192.168.0.5';
		addRequestOption(s, form.DynamicList, 'subp', _('Subprotocols'), _('Subprotocols of which the client must offer one.'));
		o = addRequestOption(s, form.Value, 'auth', _('User and password'), _('HTTP basic authentication: user:password, percent-encoded.'));
		o.password = true;
		o.validate = (section_id, value) => /^(\S+:\S*)?$/.test(value) || _('Expecting: %s').format('user:password');
		addRequestOption(s, form.Value, 'cert', _('Certificate'),
			_('File (PEM) in the certificate directory. The port then speaks wss.'));
		addRequestOption(s, form.Value, 'pkey', _('Private key'), _('File (PEM), if the key is not in the file of the certificate.'));
		o = addRequestOption(s, form.ListValue, 'defl', _('Compression'), _('Take compressed messages.'));
		o.value('', _('default (off)'));
		o.value('on', _('on'));
		o.value('off', _('off'));
		o = addRequestOption(s, form.Value, 'pngi', _('Ping interval (s)'),
			_('A browser that has been silent for this time is sent a ping. 0: no pings.'));
		o.datatype = 'ufloat';
		o.placeholder = '30';

		return m.render().then(node => {
			const page = E([], [ check.warning(checked), node ]);

			check.watch(checked);

			return page;
		});
	}
});
