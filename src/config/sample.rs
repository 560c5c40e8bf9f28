//! The sample configuration, out of what is declared in [`super::settings`].

use super::settings::SETTINGS;

/// The sample configuration: every key, commented out, with its default.
pub fn sample() -> String {
    let mut text = String::from(
        "; Sample configuration of sockproxyd. A line that begins with a semicolon is a comment. Every key stands here\n\
         ; with its default; remove the semicolon in front of a key to change it. Sections and keys may be written in\n\
         ; any case. Check the file with: sockproxyd -t -c FILE\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        if setting.section == section {
            text.push_str(";\n");
        } else {
            section = setting.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push_str(&wrapped(setting.help));
        let line = match setting.bare {
            Some(_) => format!("; {}", setting.key),
            None => format!("; {}={}", setting.key, setting.default),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(
        "\n[direct]\n\
         ;   Ports on which a connection leads straight to a target, without setup mode: port=CONN and all its options.\n\
         ; 8125=CONN mail.example.com:25 NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0\n",
    );
    text
}

/// Help as comment lines of at most 110 characters.
fn wrapped(help: &str) -> String {
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
