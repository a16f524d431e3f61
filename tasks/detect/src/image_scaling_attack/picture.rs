//! Pictures of 8 bits a channel: what every test looks at.

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageReader};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// A picture: rows from the top, in a row pixel after pixel, a pixel's channels together.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<u8>,
}

/// What is done with transparency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// Laid on white.
    Composite,
    /// Left away, as OpenCV's and Pillow's usual ways of loading do.
    Drop,
    /// Refused, as a file that cannot be read is.
    Reject,
}

impl Picture {
    /// A picture of `height` x `width` pixels of 1 (grey) or 3 (red, green, blue) channels.
    ///
    /// # Errors
    /// No pixel, another number of channels, or values that are not `height * width * channels`.
    pub fn new(height: usize, width: usize, channels: usize, values: Vec<u8>) -> Result<Self> {
        if height == 0 || width == 0 || !matches!(channels, 1 | 3) {
            return Err(Error::BadInput(format!(
                "a picture of {height} x {width} pixels and {channels} channels; it needs a pixel at least, and 1 or 3 channels"
            )));
        }
        if values.len() != height * width * channels {
            return Err(Error::BadInput(format!(
                "{} values for a picture of {height} x {width} x {channels}",
                values.len()
            )));
        }
        Ok(Picture {
            height,
            width,
            channels,
            values,
        })
    }

    /// One whose parts are known to fit.
    pub(super) fn made(height: usize, width: usize, channels: usize, values: Vec<u8>) -> Self {
        debug_assert_eq!(values.len(), height * width * channels);
        Picture {
            height,
            width,
            channels,
            values,
        }
    }

    /// Reads the bytes of a PNG, JPEG, WebP, BMP or PNM file, the format told by its content; and remarks on what was
    /// changed to make it 8 bits a channel without transparency. An orientation that a camera has noted is not applied.
    ///
    /// # Errors
    /// What is wrong, in words without the file's name.
    pub fn decode(
        bytes: &[u8],
        alpha: Alpha,
    ) -> std::result::Result<(Picture, Vec<String>), String> {
        let reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| e.to_string())?;
        if reader.format().is_none() {
            return Err("is no picture of a known format (PNG, JPEG, WebP, BMP, PNM)".into());
        }
        let loaded = reader.decode().map_err(|e| e.to_string())?;
        let mut notes = Vec::new();
        let color = loaded.color();
        if color.bytes_per_pixel() > color.channel_count() {
            notes.push("more than 8 bits a channel, scaled to 8".to_owned());
        }
        let (height, width) = (loaded.height() as usize, loaded.width() as usize);
        if height == 0 || width == 0 {
            return Err("has no pixel".into());
        }
        if !color.has_alpha() {
            return Ok(match loaded {
                DynamicImage::ImageLuma8(_) | DynamicImage::ImageLuma16(_) => (
                    Picture::made(height, width, 1, loaded.into_luma8().into_raw()),
                    notes,
                ),
                other => (
                    Picture::made(height, width, 3, other.into_rgb8().into_raw()),
                    notes,
                ),
            });
        }
        let (channels, values) = match loaded {
            DynamicImage::ImageLumaA8(_) | DynamicImage::ImageLumaA16(_) => {
                (1, loaded.into_luma_alpha8().into_raw())
            }
            other => (3, other.into_rgba8().into_raw()),
        };
        let opaque = values.iter().skip(channels).step_by(channels + 1);
        let transparent = opaque.into_iter().any(|a| *a != 255);
        let mut kept = Vec::with_capacity(height * width * channels);
        for pixel in values.chunks_exact(channels + 1) {
            let through = u32::from(pixel[channels]);
            kept.extend(pixel[..channels].iter().map(|v| match alpha {
                Alpha::Composite => {
                    ((u32::from(*v) * through + 255 * (255 - through) + 127) / 255) as u8
                }
                Alpha::Drop | Alpha::Reject => *v,
            }));
        }
        if transparent {
            match alpha {
                Alpha::Reject => {
                    return Err("is transparent in part, which alpha=reject refuses".into());
                }
                Alpha::Composite => notes.push("transparency laid on white".into()),
                Alpha::Drop => notes.push("transparency left away".into()),
            }
        }
        Ok((Picture::made(height, width, channels, kept), notes))
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// 1 for a grey picture, 3 for a coloured one.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All values, as [`Picture`] orders them.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// The values of row `y`.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        let length = self.width * self.channels;
        &self.values[y * length..(y + 1) * length]
    }

    pub(super) fn values_mut(&mut self) -> &mut [u8] {
        &mut self.values
    }

    /// The same picture with `channels` channels: grey repeated, colours weighed as brightness.
    pub fn with_channels(&self, channels: usize) -> Picture {
        match (self.channels, channels) {
            (1, 3) => Picture::made(
                self.height,
                self.width,
                3,
                self.values.iter().flat_map(|v| [*v; 3]).collect(),
            ),
            (3, 1) => Picture::made(self.height, self.width, 1, self.grey()),
            _ => self.clone(),
        }
    }

    /// Brightness of each pixel: 0.299 red + 0.587 green + 0.114 blue, rounded.
    pub fn grey(&self) -> Vec<u8> {
        if self.channels == 1 {
            return self.values.clone();
        }
        // In units of 2^-14, as OpenCV computes it.
        (self.values.chunks_exact(3))
            .map(|p| {
                let [r, g, b] = [u32::from(p[0]), u32::from(p[1]), u32::from(p[2])];
                ((4899 * r + 9617 * g + 1868 * b + 8192) >> 14) as u8
            })
            .collect()
    }

    /// The bytes of a PNG file, which keeps every value; a format that loses some would destroy an attack.
    ///
    /// # Errors
    /// A picture of more than 2^32 pixels in a row or column.
    pub fn png(&self) -> Result<Vec<u8>> {
        let size = |n: usize| u32::try_from(n).map_err(|e| Error::Failed(e.to_string()));
        let (width, height) = (size(self.width)?, size(self.height)?);
        let color = match self.channels {
            1 => ExtendedColorType::L8,
            _ => ExtendedColorType::Rgb8,
        };
        let mut bytes = Vec::new();
        image::codecs::png::PngEncoder::new(&mut bytes)
            .write_image(&self.values, width, height, color)
            .map_err(|e| Error::Failed(format!("a picture cannot be written as PNG: {e}")))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(image: DynamicImage, format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn grey_colour_and_transparency_are_read_as_said() {
        let grey = Picture::new(1, 3, 1, vec![0, 100, 255]).unwrap();
        let (back, notes) = Picture::decode(&grey.png().unwrap(), Alpha::Reject).unwrap();
        assert_eq!((back, notes.len()), (grey.clone(), 0));
        let colour = Picture::new(1, 2, 3, vec![255, 0, 0, 10, 20, 30]).unwrap();
        let (back, _) = Picture::decode(&colour.png().unwrap(), Alpha::Reject).unwrap();
        assert_eq!(back, colour);
        // 0.299 x 255 = 76.245; 2.99 + 11.74 + 3.42 = 18.15.
        assert_eq!(colour.grey(), [76, 18]);
        assert_eq!(grey.with_channels(3).with_channels(1), grey);

        let half = image::RgbaImage::from_raw(2, 1, vec![100, 0, 50, 128, 7, 8, 9, 255]).unwrap();
        let bytes = encoded(half.into(), image::ImageFormat::Png);
        let (laid, notes) = Picture::decode(&bytes, Alpha::Composite).unwrap();
        // 100 x 128 / 255 + 255 x 127 / 255 = 177.2, and so on.
        assert_eq!(laid.values(), [177, 127, 152, 7, 8, 9]);
        assert!(notes[0].contains("white"));
        let (dropped, _) = Picture::decode(&bytes, Alpha::Drop).unwrap();
        assert_eq!(dropped.values(), [100, 0, 50, 7, 8, 9]);
        let told = Picture::decode(&bytes, Alpha::Reject).unwrap_err();
        assert!(told.contains("transparent"), "{told}");
        // An alpha channel that hides nothing is no reason to refuse.
        let whole = image::GrayAlphaImage::from_raw(1, 1, vec![9, 255]).unwrap();
        let bytes = encoded(whole.into(), image::ImageFormat::Png);
        let (picture, notes) = Picture::decode(&bytes, Alpha::Reject).unwrap();
        assert_eq!((picture.values(), notes.len()), (&[9u8][..], 0));
    }

    #[test]
    fn sixteen_bits_are_scaled_and_told_of() {
        type Deep = image::ImageBuffer<image::Luma<u16>, Vec<u16>>;
        let deep = Deep::from_raw(3, 1, vec![0, 32_896, 65_535]).unwrap();
        let bytes = encoded(deep.into(), image::ImageFormat::Png);
        let (picture, notes) = Picture::decode(&bytes, Alpha::Composite).unwrap();
        assert_eq!(
            (picture.channels(), picture.values()),
            (1, &[0, 128, 255][..])
        );
        assert!(notes[0].contains("8 bits"), "{notes:?}");
    }

    #[test]
    fn every_format_is_told_by_its_content_and_broken_files_are_refused() {
        let photo = image::RgbImage::from_fn(20, 10, |x, y| {
            image::Rgb([(x * 9) as u8, (y * 20) as u8, 77])
        });
        for format in [
            image::ImageFormat::Png,
            image::ImageFormat::Jpeg,
            image::ImageFormat::WebP,
            image::ImageFormat::Bmp,
            image::ImageFormat::Pnm,
        ] {
            let bytes = encoded(photo.clone().into(), format);
            let (picture, _) = Picture::decode(&bytes, Alpha::Composite).unwrap();
            assert_eq!(
                (picture.height(), picture.width(), picture.channels()),
                (10, 20, 3)
            );
            assert!(Picture::decode(&bytes[..bytes.len() / 3], Alpha::Composite).is_err());
        }
        for bytes in [&b""[..], b"no picture at all", &[0x89, b'P', b'N', b'G']] {
            assert!(Picture::decode(bytes, Alpha::Composite).is_err());
        }
        assert!(Picture::new(2, 2, 2, vec![0; 8]).is_err());
        assert!(Picture::new(2, 2, 1, vec![0; 3]).is_err());
        assert!(Picture::new(0, 2, 1, vec![]).is_err());
    }
}
