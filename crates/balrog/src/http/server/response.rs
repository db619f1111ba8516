use std::fmt::Display;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, StatusCode};

use super::Body;

/// A response, as the `http` crate has it. Framing (`Content-Length`, `Transfer-Encoding`) and
/// `Date` are the server's to add; `Connection: close` ends the connection behind it.
pub type Response = ::http::Response<Body>;

/// What a handler may return.
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

/// 200, with nothing in it.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::default()
    }
}

/// The status with its usual words as a text; 1xx, 204 and 304 have none.
impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        let text = match self.as_u16() {
            100..200 | 204 | 304 => "",
            _ => self.canonical_reason().unwrap_or_default(),
        };
        (self, text).into_response()
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        text(Body::from(self))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        text(Body::from(self))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        typed(Body::from(self), const { HeaderValue::from_static("application/octet-stream") })
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        *response.status_mut() = self.0;
        response
    }
}

/// An error is 500, and a line on stderr; its text is not for the client.
impl<T: IntoResponse, E: Display> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => {
                eprintln!("balrog: a request failed: {error}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn text(body: Body) -> Response {
    typed(body, const { HeaderValue::from_static("text/plain; charset=utf-8") })
}

/// The value is made by the compiler, which saves a look at each of its bytes.
fn typed(body: Body, content_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
