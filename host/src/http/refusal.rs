//! What is answered where no app does.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use super::body::ResponseBody;

/// A request that no app answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its body is larger than this server takes.
    BodyTooLarge,
    /// The app failed. The log has why.
    Failed,
    /// Nothing is mounted there.
    NotFound,
    /// It has more headers than this server takes.
    TooManyHeaders,
    /// The app is known, but cannot serve now.
    Unavailable,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Makes `response` say so.
    pub(super) fn answer(self, response: &mut Response<ResponseBody>) {
        *response.body_mut() = ResponseBody::own(format!("{}\n", self.status()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.clear();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        match self {
            // The rest of it would have to be read first.
            Self::BodyTooLarge => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Failed | Self::NotFound | Self::TooManyHeaders => {}
        }
    }
}
