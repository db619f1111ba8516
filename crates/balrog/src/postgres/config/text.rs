//! The two ways to write a [`Config`](super::Config).

use super::parameters::Parameters;
use crate::percent;
use crate::postgres::Error;

pub(super) fn read(text: &str, parameters: &mut Parameters) -> Result<(), Error> {
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => url(rest, parameters),
        None => pairs(text, parameters),
    }
}

/// `postgres://[user[:password]@][host[:port]][,…][/database][?name=value[&…]]`
fn url(rest: &str, parameters: &mut Parameters) -> Result<(), Error> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = place.rsplit_once('@').unwrap_or(("", place));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    for (name, value) in [("user", user), ("password", password), ("dbname", database)] {
        if !value.is_empty() {
            parameters.set(name, decoded(name, value)?)?;
        }
    }
    if !hosts.is_empty() {
        let mut ports = Vec::new();
        let mut names = Vec::new();
        for host in hosts.split(',') {
            // The colons of an IPv6 address are in brackets.
            let bracket = host.rfind(']').map_or(0, |at| at + 1);
            let (name, port) = host[bracket..].find(':').map_or((host, ""), |at| host.split_at(bracket + at));
            names.push(decoded("host", name)?);
            ports.push(port.trim_start_matches(':'));
        }
        parameters.set("host", names.join(","))?;
        if ports.iter().any(|port| !port.is_empty()) {
            parameters.set("port", ports.join(","))?;
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.set(name, decoded(name, value)?)?;
    }
    Ok(())
}

/// `name = value name = 'a value'`, `\` before what is meant literally.
fn pairs(text: &str, parameters: &mut Parameters) -> Result<(), Error> {
    let mut rest = text.trim_start();
    let mut before = "the beginning";
    while !rest.is_empty() {
        // What stands there may be the rest of a password: it is not shown.
        let Some((name, after)) = rest.split_once('=') else {
            return Err(Error::Config(format!(
                "behind {before} comes something that is no name=value (a value with spaces is put in '')"
            )));
        };
        let name = name.trim_end();
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let mut value = String::new();
        let mut letters = after.char_indices().skip(usize::from(quoted));
        let mut end = (!quoted).then_some(after.len());
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                letter if letter.is_whitespace() && !quoted => {
                    end = Some(at);
                    break;
                }
                letter => value.push(letter),
            }
        }
        let end = end.ok_or_else(|| Error::Config("a quotation mark is missing".to_owned()))?;
        parameters.set(name, value)?;
        before = name;
        rest = after[end..].trim_start();
    }
    Ok(())
}

/// A value without percent-encoding. An error does not show it: it may be the password.
fn decoded(name: &str, value: &str) -> Result<String, Error> {
    percent::decode(value).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        Error::Config(format!(
            "{name} has a percent sign that does not stand for a part of UTF-8 (%25 is one)"
        ))
    })
}
