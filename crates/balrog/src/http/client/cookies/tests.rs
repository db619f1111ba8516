use std::time::Duration;

use super::*;

fn get(jar: &CookieJar, url: &str) -> String {
    jar.get(url).unwrap().map_or(String::new(), |line| line.to_str().unwrap().to_owned())
}

#[test]
fn each_goes_where_it_is_for() {
    let jar = CookieJar::new();
    for (url, cookie, kept) in [
        ("http://a.example.com/x/y", "default=1", true),
        ("http://a.example.com/x/y", "all=2; Domain=example.com; Path=/", true),
        ("http://a.example.com/", "foreign=3; Domain=b.example.com", false),
        ("http://a.example.com/", "public=4; Domain=com", false),
        ("http://a.co.uk/", "public=5; Domain=co.uk", false),
        ("http://a.internal/", "public=6; Domain=internal", false),
        ("http://a.example.com/", "plain=7; Secure", false),
        ("https://a.example.com/", "secure=8; Secure; Path=/", true),
        ("http://127.0.0.1/", "address=9; Domain=127.0.0.1", true),
        ("http://127.0.0.1/", "part=10; Domain=0.0.1", false),
        ("http://com/", "itself=11; Domain=com", true),
    ] {
        assert_eq!(jar.set(url, cookie).unwrap(), kept, "{url} {cookie}");
    }
    for (url, line) in [
        ("http://a.example.com/x", "default=1; all=2"),
        ("http://A.EXAMPLE.com/x/z?q", "default=1; all=2"),
        ("http://a.example.com/xx", "all=2"),
        ("http://example.com/x", "all=2"),
        ("http://badexample.com/x", ""),
        ("https://a.example.com/x", "default=1; all=2; secure=8"),
        ("http://127.0.0.1:8000/", "address=9"),
        ("http://com/", "itself=11"),
        ("http://example.org/", ""),
    ] {
        assert_eq!(get(&jar, url), line, "{url}");
    }
    jar.clear();
    assert_eq!(get(&jar, "http://example.com/x"), "");
    assert!(jar.set("nowhere", "a=b").is_err() && jar.get("nowhere").is_err());
}

#[test]
fn a_secure_cookie_is_not_replaced_in_the_clear_and_prefixes_hold() {
    let jar = CookieJar::new();
    let (plain, tls) = ("http://a.example.com/login/x", "https://a.example.com/login/x");
    for (url, cookie, kept) in [
        (tls, "id=1; Secure; Path=/login", true),
        (plain, "id=2; Path=/login/x", false),
        (plain, "id=3; Domain=example.com; Path=/login", false),
        (plain, "id=4; Path=/", true),
        (tls, "id=5; Path=/login", true),
        (tls, "__Secure-a=1", false),
        (tls, "__secure-a=1; Secure", true),
        (tls, "__Host-a=1; Secure", false),
        (tls, "__Host-a=1; Secure; Path=/; Domain=a.example.com", false),
        (tls, "__Host-a=1; Path=/", false),
        (tls, "__host-a=1; Secure; Path=/", true),
        (tls, "=__Host-a=1; Secure; Path=/", false),
        (tls, "__Secure-a", false),
    ] {
        assert_eq!(jar.set(url, cookie).unwrap(), kept, "{url} {cookie}");
    }
    assert_eq!(get(&jar, tls), "id=5; __secure-a=1; id=4; __host-a=1");
}

#[test]
fn cookies_end_are_replaced_and_make_room() {
    let now = SystemTime::now();
    let url = Url::parse("http://example.com/").unwrap();
    let mut jar = Jar::default();
    let line =
        |jar: &mut Jar, at| jar.get(&url, at).map_or(String::new(), |line| line.to_str().unwrap().to_owned());
    for cookie in ["a=1", "b=2; Max-Age=10", "a=3", "lone"] {
        assert!(jar.set(&url, cookie.as_bytes(), now), "{cookie}");
    }
    // It keeps its place.
    assert_eq!(line(&mut jar, now), "a=3; b=2; lone");
    assert_eq!(line(&mut jar, now + Duration::from_secs(10)), "a=3; lone");
    assert!(!jar.set(&url, b"a=; Max-Age=0", now));
    assert_eq!(line(&mut jar, now), "b=2; lone");
    for n in 0..2 * PER_DOMAIN {
        assert!(jar.set(&url, format!("n{n}=x; Path=/{n}").as_bytes(), now));
        // Used each time, these two stay.
        assert_eq!(line(&mut jar, now), "b=2; lone");
    }
    assert_eq!(jar.cookies.len(), PER_DOMAIN);
    for n in 0..TOTAL {
        let url = Url::parse(&format!("http://h{n}.example/")).unwrap();
        assert!(jar.set(&url, b"a=b", now));
    }
    assert_eq!(jar.cookies.len(), TOTAL);
}
