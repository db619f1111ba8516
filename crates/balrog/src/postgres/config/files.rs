//! Files of libpq's: passwords and services.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Host;
use crate::postgres::Error;

/// Where servers keep their sockets unless told otherwise: the password file calls that localhost.
const SOCKETS: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// The password of the first line that fits: `host:port:database:user:password`, `*` for any, `\`
/// before a colon or a backslash that is meant literally.
pub(super) fn password(path: &Path, host: &Host, database: &[u8], user: &[u8]) -> Option<Vec<u8>> {
    if is_open(path) {
        return None;
    }
    let name = if SOCKETS.contains(&host.name.as_str()) { "localhost" } else { &host.name };
    let port = host.port.to_string();
    let wanted = [name.as_bytes(), port.as_bytes(), database, user];
    let text = fs::read(path).ok()?;
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut rest = Some(line).filter(|line| !line.starts_with(b"#"));
        for wanted in wanted {
            let (field, behind) = field(rest?);
            if field != wanted && field != b"*" {
                return None;
            }
            rest = behind;
        }
        Some(field(rest?).0).filter(|password| !password.is_empty())
    })
}

/// Whether others than its owner may read a file.
fn is_open(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

/// The first field of a line, and what is behind the colon.
fn field(line: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let mut value = Vec::new();
    let mut bytes = line.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => return (value, Some(&line[at + 1..])),
            b'\\' => value.extend(bytes.next().map(|(_, byte)| *byte)),
            byte => value.push(*byte),
        }
    }
    (value, None)
}

/// What the section `[name]` says, in the first of the files that has it.
pub(super) fn service(
    name: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Error> {
    let own = variable("PGSERVICEFILE").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".pg_service.conf")));
    let system = variable("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    for path in own.into_iter().chain(system) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut lines = text.lines().map(str::trim);
        let heading =
            |line: &str| line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) == Some(name);
        if !lines.any(heading) {
            continue;
        }
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim_end().to_owned(), value.trim_start().to_owned()))
        };
        return lines
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                pair(line)
                    .filter(|(name, _)| name != "service")
                    .ok_or_else(|| Error::Config(format!("{}: a line is no name=value", path.display())))
            })
            .collect();
    }
    Err(Error::Config(format!("no file of services has the section [{name}] (PGSERVICEFILE names one)")))
}
