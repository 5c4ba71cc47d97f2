//! The body of an upload: a multipart form, or the bare bytes of a picture.

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, FromRequestParts, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::Body as _;
use serde::Deserialize;

use super::App;
use super::pace::Pace;
use super::problem::{Code, Problem};
use super::query::Asked;
use crate::service::{Admission, Crop};

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

impl FromRequest<App> for Picture {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
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
        let Asked(query) = Asked::<CropQuery>::from_request_parts(&mut parts, app).await?;
        let crop = query.crop.as_deref().map(parse_crop).transpose()?;
        // Not a byte of the body is read before there is room for all of it.
        let expected = declared.unwrap_or(most).min(most);
        let mut admission = app.service.admit(expected).await?;
        let limits = Limits { most, expected };
        let (pace, body) = Pace::of(body);
        let request = Request::from_parts(parts, body);
        let read = pace.keep(async {
            Ok(match shape {
                Shape::Bare => (read_bare(request.into_body(), limits).await?, crop),
                Shape::Form => {
                    let form = read_form(request, limits).await?;
                    (form.file, form.crop.or(crop))
                }
            })
        });
        let (bytes, crop) = admission.while_reading(read).await?;
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

/// What a part may be.
#[derive(Clone, Copy)]
struct Limits {
    /// The most bytes.
    most: usize,
    /// As many as are likely: what room is taken for at once, so that it is taken once.
    expected: usize,
}

async fn read_bare(body: Body, limits: Limits) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::with_capacity(limits.expected);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| malformed("the body ended early"))?;
        append(&mut bytes, &chunk, limits.most)?;
    }
    Ok(bytes.freeze())
}

struct Form {
    file: Bytes,
    crop: Option<Crop>,
}

async fn read_form(request: Request, limits: Limits) -> Result<Form, Problem> {
    let most = limits.most;
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|_| malformed("the multipart form has no boundary"))?;
    let (mut file, mut crop, mut other_file) = (None, None, None);
    while let Some(part) = parts
        .next_field()
        .await
        .map_err(|error| broken(&error, most))?
    {
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
            _ if part.file_name().is_some() => other_file = Some(()),
            _ => {}
        }
    }
    match (file, other_file) {
        (Some(file), _) => Ok(Form { file, crop }),
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
    mut part: Field<'_>,
    limits: Limits,
    refusal: impl Fn() -> Problem,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(limits.expected);
    while let Some(chunk) = part
        .chunk()
        .await
        .map_err(|error| broken(&error, limits.most))?
    {
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

fn too_large(found: Option<usize>, most: usize) -> Problem {
    let detail = match found {
        Some(found) => format!("{found} bytes; at most {most}"),
        None => format!("more than {most} bytes; at most {most}"),
    };
    Problem::new(Code::FileTooLarge, detail)
}

fn broken(error: &MultipartError, most: usize) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(None, most),
        _ => malformed("the multipart form is broken or ended early"),
    }
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
