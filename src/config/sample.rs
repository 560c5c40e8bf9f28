//! The sample configuration, made from the declarations in [`super::settings`].

use super::settings::SETTINGS;

/// The sample configuration: every key with its help and default, commented out.
pub(crate) fn sample() -> String {
    let mut text = String::from(
        "; Sample configuration of sockproxyd. A line that begins with a semicolon is a comment. The file lists every key\n\
         ; with its default; to change one, remove the semicolon before the key. Sections and keys are case-insensitive.\n\
         ; Check the file with: sockproxyd -t -c FILE\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        if setting.section == section {
            text.push_str(";\n");
        } else {
            section = setting.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&wrap(setting.help));
        let line = match setting.bare {
            Some(_) => format!("; {}", setting.key),
            None => format!("; {}={}", setting.key, setting.default),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(
        "\n[direct]\n\
         ;   Listeners without setup mode: a connection to the port leads to the target. port=CONN and its options.\n\
         ; 8125=CONN mail.example.com:25 NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0\n\
         \n[serve]\n\
         ;   WebSocket ports: a browser's connection to the port and path leads to the target. port=/path, then which\n\
         ;   requests are taken, then CONN and its options. ORIG names the pages that may connect.\n\
         ; 8126=/amplifier ORIG=http://192.168.0.5 CONN 192.168.0.15:23\n",
    );
    text
}

/// Wraps a help text into comment lines of at most 110 characters.
fn wrap(help: &str) -> String {
    let mut text = String::new();
    let mut line = String::from(";  ");
    for word in help.split(' ') {
        if line.len() + 1 + word.len() > 110 {
            text.push_str(&line);
            text.push('\n');
            line = String::from(";  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line + "\n"
}
