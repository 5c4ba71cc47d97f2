//! The body of an upload: a multipart form, or the bare bytes of a picture.

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
use crate::service::{Account, Admission, Crop};

/// What a form may take beside its picture: boundaries, part headers, small fields.
pub(super) const FORM_OVERHEAD_BYTES: usize = 64 * 1024;
/// The longest `crop` that makes sense: four numbers of ten digits.
const CROP_BYTES: usize = 64;
const CROP: Limits = Limits {
    most: CROP_BYTES,
    expected: CROP_BYTES,
};
/// The names that the part with the picture may have.
const FILE_PARTS: [&str; 3] = ["file", "image", "avatar"];

/// A picture that somebody sent, and the room that is reserved for it.
pub(super) struct Picture {
    pub(super) bytes: Bytes,
    pub(super) crop: Option<Crop>,
    pub(super) admission: Admission,
}

#[derive(Deserialize)]
struct CropQuery {
    crop: Option<String>,
}

enum Shape {
    Form,
    Bare,
}

impl FromRequest<AppState> for Picture {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            let detail = "the request has no body; send a picture";
            return Err(Problem::new(Code::MissingFile, detail));
        }
        let shape = shape(&request)?;
        let most = app.service.settings().max_upload_bytes;
        let overhead = match shape {
            Shape::Form => FORM_OVERHEAD_BYTES,
            Shape::Bare => 0,
        };
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if let Some(declared) = declared.filter(|declared| *declared > most + overhead) {
            return Err(too_large(Some(declared), most));
        }
        let (mut parts, body) = request.into_parts();
        let Query(query) = Query::<CropQuery>::from_request_parts(&mut parts, app).await?;
        let crop = query.crop.as_deref().map(parse_crop).transpose()?;
        let boundary = match shape {
            Shape::Form => Some(boundary(&parts)?),
            Shape::Bare => None,
        };
        // Who uploads: the extractor of the permit has put it there.
        let account = parts.extensions.remove::<Account>();
        let account = account.ok_or_else(|| Problem::new(Code::Internal, "an internal error"))?;
        // Not a byte of the body is read before there is memory for it.
        let max_bytes = most + overhead;
        let expected = declared.unwrap_or(max_bytes);
        let admission = app.service.admit(account, expected).await?;
        let limits = Limits {
            most,
            expected: expected.min(most),
        };
        let mut body = IncomingBody::new(body, admission, max_bytes, most);
        let (bytes, crop) = match boundary {
            None => (read_bare(&mut body, limits).await?, crop),
            Some(boundary) => {
                let form = read_form(Form::new(&mut body, boundary), limits).await?;
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

fn shape(request: &Request) -> Result<Shape, Problem> {
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
        "multipart/form-data" => Ok(Shape::Form),
        "application/octet-stream" => Ok(Shape::Bare),
        kind if kind.starts_with("image/") => Ok(Shape::Bare),
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

/// What a part may be.
#[derive(Clone, Copy)]
struct Limits {
    /// The most bytes.
    most: usize,
    /// As many as are likely: what room is taken for at once, so that it is taken once.
    expected: usize,
}

async fn read_bare(body: &mut IncomingBody, limits: Limits) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(limits.expected);
    while let Some(chunk) = body.next().await? {
        append(&mut bytes, &chunk, limits.most)?;
    }
    Ok(bytes.freeze())
}

/// What a form holds of an upload.
struct Fields {
    file: Bytes,
    crop: Option<Crop>,
}

async fn read_form(mut form: Form<'_>, limits: Limits) -> Result<Fields, Problem> {
    let most = limits.most;
    let (mut file, mut crop, mut other_file) = (None, None, None);
    while let Some(part) = form.next().await? {
        match part.name() {
            Some(name) if FILE_PARTS.contains(&name) => {
                if file.is_some() {
                    return Err(malformed("the form has more than one picture; send one"));
                }
                file = Some(read_part(part, limits, || too_large(None, most)).await?);
            }
            Some("crop") => {
                let text = read_part(part, CROP, || invalid_crop("…")).await?;
                crop = Some(parse_crop(&String::from_utf8_lossy(&text))?);
            }
            // Other fields of a form are none of this service's business.
            _ => {
                if part.is_file() {
                    other_file = Some(());
                }
                part.skip().await?;
            }
        }
    }
    match (file, other_file) {
        (Some(file), _) => Ok(Fields { file, crop }),
        (None, None) => {
            let detail = "the form has no picture; send it as the part \"file\"";
            Err(Problem::new(Code::MissingFile, detail))
        }
        (None, Some(())) => {
            let detail = "the form's file has another name; send it as the part \"file\", \
                          \"image\" or \"avatar\"";
            Err(Problem::new(Code::MissingFile, detail))
        }
    }
}

async fn read_part(
    mut part: Part<'_>,
    limits: Limits,
    refusal: impl Fn() -> Problem,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(limits.expected);
    while let Some(chunk) = part.chunk().await? {
        append(&mut bytes, &chunk, limits.most).map_err(|_| refusal())?;
    }
    Ok(bytes.freeze())
}

fn append(bytes: &mut BytesMut, chunk: &[u8], most: usize) -> Result<(), Problem> {
    if bytes.len() + chunk.len() > most {
        return Err(too_large(None, most));
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
    let detail = format!("the crop is {shown:?}; give x,y,width,height in whole pixels");
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
