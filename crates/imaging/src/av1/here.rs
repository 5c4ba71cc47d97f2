//! In the fuzzer's own process, so that the sanitizer sees what the decoder does.

use super::wire::Outcome;
use super::{Shape, decoder};
use crate::SourceFormat;
use crate::{Control, Error};

/// How AV1 is decoded: here.
#[derive(Clone, Debug, Default)]
pub struct Av1;

impl Av1 {
    pub(crate) fn open(
        &self,
        _shape: Shape,
        _stream_bytes: usize,
        control: &Control,
    ) -> Result<Decoder, Error> {
        control.check()?;
        Ok(Decoder)
    }
}

#[derive(Debug)]
pub(crate) struct Decoder;

impl Decoder {
    pub(crate) fn decode(
        &mut self,
        stream: &[u8],
        shape: Shape,
        _control: &Control,
    ) -> Result<[Vec<u16>; 3], Error> {
        let corrupt = |_: Outcome| Error::Corrupt {
            format: SourceFormat::Avif,
            reason: "its data is damaged",
        };
        let decoded = decoder::decode(stream.to_vec(), shape).map_err(corrupt)?;
        let mut samples = Vec::with_capacity(shape.samples() as usize);
        decoded.rows(|row| {
            if shape.sample_bytes() == 1 {
                samples.extend(row.iter().copied().map(u16::from));
            } else {
                let pairs = row.as_chunks::<2>().0;
                samples.extend(pairs.iter().map(|pair| u16::from_ne_bytes(*pair)));
            }
            Ok::<(), Error>(())
        })?;
        let mut rest = samples.into_iter();
        Ok(shape.planes().map(|(width, height)| {
            let count = width as usize * height as usize;
            rest.by_ref().take(count).collect()
        }))
    }
}
