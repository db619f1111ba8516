//! The example's two sides, one against the other over real sockets.

use std::net::TcpListener;
use std::sync::Arc;

use balrog_proto::http1::Limits;

#[allow(dead_code, reason = "an example has a main function")]
#[path = "../examples/http1.rs"]
mod http1;

#[test]
fn what_is_posted_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let large = "x".repeat(1_000_000);
    for data in ["", "two soups", &large] {
        let (status, body) = std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                http1::serve(&stream, Arc::new(Limits::default()))
            });
            let answer = http1::post(&address, data.as_bytes()).unwrap();
            serving.join().unwrap().unwrap();
            answer
        });
        assert_eq!(status, 200);
        assert!(body == format!("POST /\n{data}").as_bytes(), "{} bytes", body.len());
    }
}
