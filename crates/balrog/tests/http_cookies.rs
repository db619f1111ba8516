//! The HTTP client's cookies, against our own server: one body in every mode.
#![cfg(feature = "cookies")]

use balrog::http::StatusCode;
use balrog::http::client::{Client, CookieJar};
use balrog::http::server::{IntoResponse, Request, Response, Server};
use balrog::net::TcpListener;
use balrog::{Runtime, spawn};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn answer(request: &mut Request<'_>) -> Response {
    let mut response = match request.path() {
        "/login" | "/away" => StatusCode::FOUND.into_response(),
        _ => request.header("cookie").unwrap_or("-").to_owned().into_response(),
    };
    let fields = response.headers_mut();
    match request.path() {
        "/login" => {
            fields.insert("location", "/menu".parse().unwrap());
            for cookie in
                ["session=1", "lang=en; Path=/", "foreign=3; Domain=example.com", "gone=4; Max-Age=0"]
            {
                fields.append("set-cookie", cookie.parse().unwrap());
            }
        }
        // Where it leads says the query.
        "/away" => drop(fields.insert("location", request.query().parse().unwrap())),
        "/logout" => drop(fields.insert("set-cookie", "session=; Max-Age=0; Path=/".parse().unwrap())),
        _ => {}
    }
    response
}

#[test]
fn cookies_go_along_redirects_and_to_their_host_alone() {
    for runtime in Runtime::all() {
        let scenario = || -> Result<()> {
            let server = Server::new();
            let (listener, handle) = (TcpListener::bind("127.0.0.1:0")?, server.handle());
            let port = listener.local_addr()?.port();
            let mut task = spawn(move || server.serve(listener, answer))?;
            let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
            let jar = CookieJar::new();
            let client = Client::new().no_proxies().cookies(&jar);
            let text = |url: &str| -> Result<String> { Ok(client.get(url).send()?.text()?) };
            // Set by the redirect, sent to where it leads.
            assert_eq!(text(&at("/login"))?, "session=1; lang=en");
            assert_eq!(jar.get(&at("/"))?.unwrap(), "session=1; lang=en");
            assert_eq!(client.get(&at("/")).header("cookie", "own=1").send()?.text()?, "own=1");
            // The same server by another name: neither the jar's nor the request's own.
            let elsewhere = format!("http://localhost:{port}/menu");
            assert_eq!(text(&at(&format!("/away?{elsewhere}")))?, "-");
            let away = client.get(&at(&format!("/away?{elsewhere}"))).header("cookie", "own=1").send()?;
            assert_eq!(away.text()?, "-");
            jar.set(&elsewhere, "here=5; Path=/")?;
            let away = client.get(&at(&format!("/away?{elsewhere}"))).header("cookie", "own=1").send()?;
            assert_eq!(away.text()?, "here=5");
            assert_eq!(text(&at("/logout"))?, "session=1; lang=en");
            assert_eq!(text(&at("/"))?, "lang=en");
            // Without a jar, nothing is kept.
            assert_eq!(Client::new().no_proxies().get(&at("/login")).send()?.text()?, "-");
            handle.stop();
            Ok(task.join()??)
        };
        runtime.run(scenario).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
    }
}
