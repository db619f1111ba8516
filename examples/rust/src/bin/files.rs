//! Keeps files: `curl -T soup.txt http://ADDRESS/soup.txt` and `curl http://ADDRESS/soup.txt`.
//!
//! `cargo run --bin files -- [--mode MODE] ADDRESS FOLDER`

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use balrog::http::StatusCode;
use balrog::http::server::{Body, IntoResponse, Request, Response, Server};
use balrog_examples::{Arguments, listen};

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let [address, folder] =
        rest.try_into().map_err(|_| io::Error::other("files takes an address and a folder"))?;
    mode.run(move || {
        Server::new().serve(listen(&address)?, move |request: &mut Request<'_>| {
            let Some(path) = file(Path::new(&folder), request.path()) else {
                return (StatusCode::BAD_REQUEST, "a name of letters, digits, dots and dashes\n")
                    .into_response();
            };
            let done = match request.method().as_str() {
                "PUT" => put(request, &path),
                "GET" => get(&path),
                _ => Ok(StatusCode::METHOD_NOT_ALLOWED.into_response()),
            };
            done.unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
            })
        })
    })?
}

/// Whatever its size, in the memory of a few buffers. A body that is cut leaves no file.
fn put(request: &mut Request<'_>, path: &Path) -> io::Result<Response> {
    let part = path.with_extension("part");
    let copied = File::create(&part).and_then(|mut file| io::copy(request, &mut file));
    match copied {
        Ok(bytes) => {
            fs::rename(part, path)?;
            Ok((StatusCode::CREATED, format!("{bytes} bytes\n")).into_response())
        }
        Err(error) => {
            fs::remove_file(part)?;
            Err(error)
        }
    }
}

fn get(path: &Path) -> io::Result<Response> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Response::new(Body::sized(file, length)))
}

fn file(folder: &Path, path: &str) -> Option<PathBuf> {
    let name = path.strip_prefix('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)).then(|| folder.join(name))
}
