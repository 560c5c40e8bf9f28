'use strict';
'require baseclass';
'require rpc';

const callCheck = rpc.declare({
	object: 'sockproxyd',
	method: 'check',
	expect: { '': {} }
});

/* What the daemon says of the saved configuration. It knows more than the forms, which check field by field. */
return baseclass.extend({
	load() {
		return L.resolveDefault(callCheck(), {});
	},

	/* Returns a warning for the top of a page, or an empty element. */
	warning(check) {
		if (!check.text)
			return E('div');

		return E('div', { 'class': 'alert-message warning' }, [
			E('p', check.valid ? _('The saved configuration names something that cannot be used:')
				: _('The saved configuration has an error. A proxy that runs keeps the previous one, and none can start with it:')),
			E('pre', {}, [ document.createTextNode(check.text) ])
		]);
	}
});
