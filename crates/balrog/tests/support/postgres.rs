//! A PostgreSQL of the tests' own, by `scripts/postgres.py`; it ends when its pipe does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

pub(crate) struct Server {
    _process: Child,
    pipe: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// That of its Unix socket.
    pub(crate) directory: String,
}

impl Server {
    /// With these further arguments of `postgres.py supervise`: settings, files.
    pub(crate) fn start(arguments: &[String]) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
        let found = Command::new(scripts.join("python")).output().unwrap();
        let python = String::from_utf8(found.stdout).unwrap();
        let mut process = Command::new(python.trim())
            .arg(scripts.join("postgres.py"))
            .arg("supervise")
            .args(arguments.iter().filter(|argument| argument.starts_with("--")))
            .args(["balrog", "fsync=off", "max_connections=50"])
            .args(arguments.iter().filter(|argument| !argument.starts_with("--")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut server = Self { _process: process, pipe: Mutex::new(pipe), directory: String::new() };
        server.directory = server.exchange("");
        server
    }

    /// Has the supervisor do something: `stop immediate`, `start`.
    pub(crate) fn exchange(&self, command: &str) -> String {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if !command.is_empty() {
            writeln!(pipe.0, "{command}").unwrap();
        }
        let mut line = String::new();
        pipe.1.read_line(&mut line).unwrap();
        line.trim_end().strip_prefix("ok").unwrap_or_else(|| panic!("{line}")).trim().to_owned()
    }
}
