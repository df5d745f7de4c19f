//! What is answered where no app does.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use super::response_body::ResponseBody;
use crate::log::access::Outcome;

/// A request that no app answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A field of it has a value that HTTP/2 does not allow (RFC 9113, section 8.2.1).
    BadField,
    /// It does not say once, and in a form that a host has, which host it is for (RFC 9112, section
    /// 3.2; RFC 9113, section 8.3.1).
    BadHost,
    /// Its target is not of a form that goes with its method (RFC 9112, section 3.2).
    BadTarget,
    /// Its body is larger than this server takes.
    BodyTooLarge,
    /// Its client sent nothing of its body for too long.
    BodyTooSlow,
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
            Self::BadField | Self::BadHost | Self::BadTarget => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What came of the request, in the log's words.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::BadField | Self::BadHost | Self::BadTarget => Outcome::Malformed,
            Self::BodyTooSlow => Outcome::TimedOut,
            _ => Outcome::Refused,
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
            // The rest of it would have to be read first, or who knows what comes next.
            Self::BadField
            | Self::BadHost
            | Self::BadTarget
            | Self::BodyTooLarge
            | Self::BodyTooSlow => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Failed | Self::NotFound | Self::TooManyHeaders => {}
        }
    }
}
