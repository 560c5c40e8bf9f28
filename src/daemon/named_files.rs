//! Whether the files of certificates and keys that the configuration names can be used: those of `[tls]`, `[direct]` and
//! `[serve]`. A plugin's files are read when it names them.

use crate::config::Config;
use crate::tls::{TlsContext, TlsError, TlsSettings};

/// Returns what is wrong with the files, each in one line. Reads them as connections would, which takes tens of milliseconds
/// for each key: not for the loop.
pub(crate) fn file_problems(config: &Config) -> Vec<String> {
    // A context of its own, so that nothing of it stays in memory.
    let context = TlsContext::new(config.tls.directory.clone(), config.tls.ca.clone());
    let unusable_ca = config.tls.ca.as_ref().and_then(|_| context.config(&TlsSettings::default()).err());
    let mut problems: Vec<String> = unusable_ca.iter().map(TlsError::to_string).collect();
    let mut add = |port: u16, error: Option<TlsError>| {
        let error = error.map(|error| error.to_string()).filter(|error| !problems.contains(error));
        let line = error.map(|error| format!("port {port}: {error}"));
        problems.extend(line.filter(|line| !problems.contains(line)));
    };
    let direct = config.direct.iter().map(|line| (line.port, &line.parameters));
    for (port, parameters) in direct.chain(config.serve.iter().map(|line| (line.port, &line.parameters))) {
        add(port, parameters.tls.as_ref().and_then(|tls| context.config(tls).err()));
    }
    for line in &config.serve {
        add(line.port, line.settings.tls.as_ref().and_then(|tls| context.server_config(tls).err()));
    }
    problems
}
