//! Tests with tables of responses: their `content-length` fields before and after the framing.

use http::Request;

use super::*;

fn framing(version: Version, method: &str) -> Framing {
    let request = Request::builder().version(version).method(method).body(());
    Framing::of(&request.unwrap().into_parts().0)
}

fn response(status: u16, lengths: &[&str]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for length in lengths {
        response = response.header(CONTENT_LENGTH, *length);
    }
    response.body(()).unwrap()
}

/// Applies `framing` to a response. Returns the result, and the `content-length` values of the head afterwards.
fn content(
    framing: Framing,
    mut response: Response<()>,
    size: &SizeHint,
) -> (Result<BodyFraming, FramingError>, Vec<String>) {
    let content = framing.apply(&mut response, || *size);
    let lengths = response.headers().get_all(CONTENT_LENGTH).iter();
    let lengths = lengths.map(|length| length.to_str().unwrap().to_owned());
    (content, lengths.collect())
}

fn body(said: Option<u64>) -> Result<BodyFraming, FramingError> {
    Ok(BodyFraming::Body(said))
}

#[test]
fn a_length_is_that_of_the_body_or_an_error() {
    let unknown = SizeHint::new();
    let four = SizeHint::with_exact(4);
    let wrong = |said, actual| {
        Err(FramingError::Length {
            announced: said,
            actual,
        })
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let get = framing(version, "GET");
        let head = framing(version, "HEAD");
        for (framing, lengths, size, expected) in [
            (get, &[][..], &four, body(None)),
            (get, &[], &unknown, body(None)),
            (get, &["4"], &four, body(Some(4))),
            (get, &["04"], &four, body(Some(4))),
            (get, &["4", "4"], &four, body(Some(4))),
            (get, &["4"], &unknown, body(Some(4))),
            (get, &["5"], &four, wrong(5, 4)),
            (get, &["0"], &four, wrong(0, 4)),
            (get, &["5"], &SizeHint::with_exact(0), wrong(5, 0)),
            (get, &["5", "4"], &four, Err(FramingError::Differs(5, 4))),
            (
                get,
                &["x"],
                &four,
                Err(FramingError::NotANumber("x".into())),
            ),
            (
                get,
                &["+4"],
                &four,
                Err(FramingError::NotANumber("+4".into())),
            ),
            (
                get,
                &["4, 4"],
                &four,
                Err(FramingError::NotANumber("4, 4".into())),
            ),
            (
                get,
                &[""],
                &unknown,
                Err(FramingError::NotANumber(String::new())),
            ),
            (head, &["5"], &SizeHint::with_exact(0), body(Some(5))),
            (head, &["5"], &unknown, body(Some(5))),
            (head, &["5"], &four, wrong(5, 4)),
            (
                head,
                &["x"],
                &unknown,
                Err(FramingError::NotANumber("x".into())),
            ),
        ] {
            let (content, said) = content(framing, response(200, lengths), size);
            assert_eq!(content, expected, "{framing:?} {lengths:?}");
            if content.is_ok() {
                let once = lengths
                    .first()
                    .map(|length| parse_length(length.as_bytes()));
                let said: Vec<_> = said
                    .iter()
                    .map(|said| parse_length(said.as_bytes()))
                    .collect();
                assert_eq!(said, Vec::from_iter(once), "{framing:?} {lengths:?}");
            }
        }
    }
}

#[test]
fn a_length_within_the_bounds_of_a_stream_may_be_right() {
    let mut size = SizeHint::new();
    size.set_lower(2);
    size.set_upper(4);
    let get = framing(Version::HTTP_11, "GET");
    for (said, is_right) in [("1", false), ("2", true), ("4", true), ("5", false)] {
        let (content, _) = content(get, response(200, &[said]), &size);
        assert_eq!(content.is_ok(), is_right, "{said}");
    }
}

#[test]
fn what_has_no_body_has_no_length() {
    let four = SizeHint::with_exact(4);
    for (version, method, status) in [
        (Version::HTTP_11, "GET", 204),
        (Version::HTTP_2, "GET", 304),
        (Version::HTTP_2, "HEAD", 204),
        (Version::HTTP_11, "GET", 101),
        (Version::HTTP_11, "CONNECT", 200),
        (Version::HTTP_2, "CONNECT", 299),
    ] {
        for lengths in [&[][..], &["4"], &["9", "9"]] {
            let content = content(framing(version, method), response(status, lengths), &four);
            assert_eq!(
                content,
                (Ok(BodyFraming::NoBody), vec![]),
                "{method} {status}"
            );
        }
    }
}

#[test]
fn a_status_that_announces_another_response_is_none() {
    for (version, status) in [
        (Version::HTTP_11, 100),
        (Version::HTTP_11, 103),
        (Version::HTTP_2, 103),
        (Version::HTTP_2, 101),
    ] {
        let get = framing(version, "GET");
        let (content, _) = content(get, response(status, &[]), &SizeHint::with_exact(0));
        assert_eq!(content, Err(FramingError::Interim(status)));
    }
}

#[test]
fn a_stream_is_as_long_as_its_head_says() {
    let data = |text: &'static str| Frame::data(text.as_bytes());
    let mut length = LengthCheck::of(None, &SizeHint::with_exact(4));
    assert_eq!(length, LengthCheck::of(Some(4), &SizeHint::new()));
    assert_eq!(length.count(Some(&data("ab"))), Ok(()));
    assert!(length.is_short());
    let shorter = LengthError::Shorter {
        expected: 4,
        received: 2,
    };
    assert_eq!(length.count::<&[u8]>(None), Err(shorter));
    assert_eq!(length.count(Some(&data("cd"))), Ok(()));
    assert!(!length.is_short());
    let trailers = Frame::<&[u8]>::trailers(HeaderMap::new());
    assert_eq!(length.count(Some(&trailers)), Ok(()));
    assert_eq!(length.count::<&[u8]>(None), Ok(()));
    let longer = LengthError::Longer { expected: 4 };
    assert_eq!(length.count(Some(&data("e"))), Err(longer));

    let mut unknown = LengthCheck::default();
    assert_eq!(unknown.count(Some(&data("any"))), Ok(()));
    assert!(!unknown.is_short());
    assert_eq!(unknown.count::<&[u8]>(None), Ok(()));
}
