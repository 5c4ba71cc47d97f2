//! The body of an upload: a multipart form, or the bytes of a picture.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use hyper::body::Body as _;
use serde::Deserialize;

use super::AppState;
use super::form::{Form, Part};
use super::incoming::{IncomingBody, too_large};
use super::problem::{Code, Problem};
use super::query::Query;
use crate::avatar::Account;
use crate::service::{Admission, Crop};

/// The most bytes of a form besides its picture: boundaries, part headers, small fields.
pub(super) const FORM_OVERHEAD_BYTES: usize = 64 * 1024;
/// The longest `crop`: four numbers of ten digits, and some spaces.
const CROP_BYTES: usize = 64;
const CROP: PartSize = PartSize {
    max_bytes: CROP_BYTES,
    expected_bytes: CROP_BYTES,
};
/// The possible names of the part with the picture.
const FILE_PARTS: [&str; 3] = ["file", "image", "avatar"];

/// An uploaded picture, and the memory that is reserved for it.
///
/// The extractor of a [`Permit`](super::permit::Permit) must run before this one: it leaves the
/// account that the memory counts against in the request's extensions.
///
/// # Errors
/// 400 and 415 if the request is no upload, 413 if the body is too large, 408 if it is too slow,
/// 503 if there is no memory for it in time.
pub(super) struct Picture {
    pub(super) bytes: Bytes,
    pub(super) crop: Option<Crop>,
    pub(super) admission: Admission,
}

#[derive(Deserialize)]
struct CropQuery {
    crop: Option<String>,
}

/// The kind of body of an upload.
enum BodyKind {
    /// A multipart form.
    Form,
    /// The bytes of the picture.
    Bare,
}

impl FromRequest<AppState> for Picture {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            let detail = "the request has no body; send a picture";
            return Err(Problem::new(Code::MissingFile, detail));
        }
        let kind = body_kind(&request)?;
        let max_upload_bytes = app.service.settings().max_upload_bytes;
        let overhead = match kind {
            BodyKind::Form => FORM_OVERHEAD_BYTES,
            BodyKind::Bare => 0,
        };
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if let Some(declared) = declared.filter(|declared| *declared > max_upload_bytes + overhead)
        {
            return Err(too_large(Some(declared), max_upload_bytes));
        }
        let (mut parts, body) = request.into_parts();
        let Query(query) = Query::<CropQuery>::from_request_parts(&mut parts, app).await?;
        let crop = query.crop.as_deref().map(parse_crop).transpose()?;
        let boundary = match kind {
            BodyKind::Form => Some(boundary(&parts)?),
            BodyKind::Bare => None,
        };
        let account = parts.extensions.remove::<Account>();
        let account = account.ok_or_else(|| Problem::new(Code::Internal, "an internal error"))?;
        // No byte of the body is read before memory is reserved for it.
        let max_bytes = max_upload_bytes + overhead;
        let expected = declared.unwrap_or(max_bytes);
        let admission = app.service.admit(account, expected).await?;
        let size = PartSize {
            max_bytes: max_upload_bytes,
            expected_bytes: expected.min(max_upload_bytes),
        };
        let mut body = IncomingBody::new(body, admission, max_bytes, max_upload_bytes);
        let (bytes, crop) = match boundary {
            None => (read_bare(&mut body, size).await?, crop),
            Some(boundary) => {
                let form = read_form(Form::new(&mut body, boundary), size).await?;
                (form.file, form.crop.or(crop))
            }
        };
        let admission = body.into_admission();
        if bytes.is_empty() {
            return Err(Problem::new(Code::MissingFile, "the picture has no bytes"));
        }
        Ok(Self {
            bytes,
            crop,
            admission,
        })
    }
}

/// The kind of a request's body, by its declared type.
fn body_kind(request: &Request) -> Result<BodyKind, Problem> {
    let text = |name| {
        let value = request.headers().get(name);
        let value = value.and_then(|value| value.to_str().ok());
        value.unwrap_or_default().trim().to_ascii_lowercase()
    };
    let unsupported = |found: String| {
        let detail = format!("found {found}; send multipart/form-data, or a picture as image/*");
        Problem::new(Code::UnsupportedMediaType, detail)
    };
    let coding = text(CONTENT_ENCODING);
    if !matches!(coding.as_str(), "" | "identity") {
        return Err(unsupported(format!("the content encoding {coding:?}")));
    }
    let kind = text(CONTENT_TYPE);
    match kind.split(';').next().unwrap_or_default().trim_end() {
        "multipart/form-data" => Ok(BodyKind::Form),
        "application/octet-stream" => Ok(BodyKind::Bare),
        kind if kind.starts_with("image/") => Ok(BodyKind::Bare),
        "" => Err(unsupported("no content type".to_owned())),
        kind => Err(unsupported(format!("{kind:?}"))),
    }
}

/// The boundary of a form's parts.
fn boundary(parts: &Parts) -> Result<String, Problem> {
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    multer::parse_boundary(kind).map_err(|_| malformed("the multipart form has no boundary"))
}

/// The size of a part of a form, or of a body without a form.
#[derive(Clone, Copy)]
struct PartSize {
    max_bytes: usize,
    /// The capacity of the buffer at first. With the right size it is allocated once.
    expected_bytes: usize,
}

async fn read_bare(body: &mut IncomingBody, size: PartSize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(size.expected_bytes);
    while let Some(chunk) = body.next().await? {
        append(&mut bytes, &chunk, size.max_bytes)?;
    }
    Ok(bytes.freeze())
}

/// The fields of a form that belong to an upload.
struct Fields {
    file: Bytes,
    crop: Option<Crop>,
}

async fn read_form(mut form: Form<'_>, size: PartSize) -> Result<Fields, Problem> {
    let (mut file, mut crop, mut has_other_file) = (None, None, false);
    while let Some(part) = form.next().await? {
        match part.name() {
            Some(name) if FILE_PARTS.contains(&name) => {
                if file.is_some() {
                    return Err(malformed("the form has more than one picture; send one"));
                }
                file = Some(read_part(part, size, || too_large(None, size.max_bytes)).await?);
            }
            Some("crop") => {
                let text = read_part(part, CROP, || invalid_crop("…")).await?;
                crop = Some(parse_crop(&String::from_utf8_lossy(&text))?);
            }
            // Other fields are ignored.
            _ => {
                has_other_file |= part.is_file();
                part.skip().await?;
            }
        }
    }
    match file {
        Some(file) => Ok(Fields { file, crop }),
        None if has_other_file => {
            let detail = "the form's file has another name; send it as the part \"file\", \
                          \"image\" or \"avatar\"";
            Err(Problem::new(Code::MissingFile, detail))
        }
        None => {
            let detail = "the form has no picture; send it as the part \"file\"";
            Err(Problem::new(Code::MissingFile, detail))
        }
    }
}

async fn read_part(
    mut part: Part<'_>,
    size: PartSize,
    too_large: impl Fn() -> Problem,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(size.expected_bytes);
    while let Some(chunk) = part.chunk().await? {
        append(&mut bytes, &chunk, size.max_bytes).map_err(|_| too_large())?;
    }
    Ok(bytes.freeze())
}

fn append(bytes: &mut BytesMut, chunk: &[u8], max_bytes: usize) -> Result<(), Problem> {
    if bytes.len() + chunk.len() > max_bytes {
        return Err(too_large(None, max_bytes));
    }
    bytes.extend_from_slice(chunk);
    Ok(())
}

fn parse_crop(text: &str) -> Result<Crop, Problem> {
    let mut numbers = text
        .split(',')
        .map(|number| number.trim().parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let crop = (next(), next(), next(), next());
    match (crop, numbers.next()) {
        ((Some(x), Some(y), Some(width), Some(height)), None) => Ok(Crop {
            x,
            y,
            width,
            height,
        }),
        _ => Err(invalid_crop(text)),
    }
}

fn invalid_crop(text: &str) -> Problem {
    let shown: String = text.chars().take(CROP_BYTES).collect();
    let detail = format!("the crop is {shown:?}; send x,y,width,height in whole pixels");
    Problem::new(Code::InvalidCrop, detail)
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_is_four_whole_numbers() {
        let crop = parse_crop("1, 2,30,40").unwrap();
        assert_eq!(
            crop,
            Crop {
                x: 1,
                y: 2,
                width: 30,
                height: 40
            }
        );
        for text in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,3,-4",
            "1,2,3,4.5",
            "a,b,c,d",
            "1,2,3,99999999999",
        ] {
            assert_eq!(
                parse_crop(text).unwrap_err().code,
                Code::InvalidCrop,
                "{text}"
            );
        }
    }
}
