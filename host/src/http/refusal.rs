//! The responses that the host sends in place of an app's response.

use std::fmt;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use super::response_body::ResponseBody;
use crate::log::access::RequestOutcome;

/// Why the host answers a request in place of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A header field has a value that HTTP/2 does not allow (RFC 9113, section 8.2.1).
    BadField,
    /// The request does not name exactly one host, or the host is not valid (RFC 9112, section 3.2; RFC 9113,
    /// section 8.3.1).
    BadHost,
    /// The form of the request target is not allowed for the method (RFC 9112, section 3.2).
    BadTarget,
    /// The body is larger than `--max-body-size`.
    BodyTooLarge,
    /// The client sent nothing of the body for `--body-timeout`.
    BodyTooSlow,
    /// The app failed. The reason is in the log.
    Failed,
    /// No app is mounted at the path.
    NotFound,
    /// The request has more header fields than `--max-headers`.
    TooManyHeaders,
    /// An app is mounted at the path, but cannot serve now.
    Unavailable,
}

/// Writes the reason as the end of a sentence.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BadField => "a header field has a value that HTTP/2 does not allow",
            Self::BadHost => "the request does not name its host once, in the form of a host",
            Self::BadTarget => "the request target has a form that does not go with the method",
            Self::BodyTooLarge => "the body is larger than --max-body-size",
            Self::BodyTooSlow => "the client sent nothing of the body for --body-timeout",
            Self::Failed => "the app failed",
            Self::NotFound => "no app is mounted at the path",
            Self::TooManyHeaders => "there are more header fields than --max-headers",
            Self::Unavailable => "the app that is mounted at the path cannot serve now",
        })
    }
}

impl Refusal {
    /// Returns the status of the response.
    pub(super) fn status(self) -> StatusCode {
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

    /// Returns the outcome of the request for the access log.
    pub(super) fn outcome(self) -> RequestOutcome {
        match self {
            Self::BadField | Self::BadHost | Self::BadTarget => RequestOutcome::Malformed,
            Self::BodyTooSlow => RequestOutcome::TimedOut,
            _ => RequestOutcome::Refused,
        }
    }

    /// Writes the host's response to `response`: the status, the header fields and a short text.
    pub(super) fn write_to(self, response: &mut Response<ResponseBody>) {
        *response.body_mut() = ResponseBody::of_host(format!("{}\n", self.status()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        // Fields of the app are removed: a call that failed may have written some before.
        headers.clear();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        match self {
            // The connection cannot carry another request: the rest of the body would have to be read first, or the
            // end of a malformed request is not known.
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
