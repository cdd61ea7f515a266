//! Letters for pictures: a backend of the plotting library that writes text with an 8 × 8 font of its own, so that a
//! PNG needs no fonts of the system.

use font8x8::{BASIC_FONTS, UnicodeFonts};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontTransform,
};

/// Pixels of a glyph's side.
const GLYPH: i32 = 8;

/// Pixels of the picture for each of the font's.
const SCALE: i32 = 2;

/// A backend whose text is drawn here.
pub struct Lettered<B> {
    inner: B,
}

impl<B: DrawingBackend> Lettered<B> {
    /// Draws letters on this one.
    pub fn new(inner: B) -> Lettered<B> {
        Lettered { inner }
    }
}

impl<B: DrawingBackend> DrawingBackend for Lettered<B> {
    type ErrorType = B::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.inner.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.present()
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let (width, height) = (text.chars().count() as i32 * GLYPH * SCALE, GLYPH * SCALE);
        let (width, height) = if is_upright(&style.transform()) { (height, width) } else { (width, height) };
        Ok((width as u32, height as u32))
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let (width, height) = (text.chars().count() as i32 * GLYPH * SCALE, GLYPH * SCALE);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let upright = is_upright(&style.transform());
        for (number, character) in text.chars().enumerate() {
            let glyph = BASIC_FONTS.get(character).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
            for (x, y) in pixels(glyph) {
                let (x, y) = (left + number as i32 * GLYPH * SCALE + x, top + y);
                let (x, y) = if upright { (y, -x) } else { (x, y) };
                self.inner.draw_pixel((at.0 + x, at.1 + y), style.color())?;
            }
        }
        Ok(())
    }
}

/// Whether text goes from below to above, as the name of the upright axis does.
fn is_upright(transform: &FontTransform) -> bool {
    matches!(transform, FontTransform::Rotate270 | FontTransform::Rotate90)
}

/// The pixels of a glyph in the picture. The font has the leftmost one in the lowest bit.
fn pixels(glyph: [u8; 8]) -> impl Iterator<Item = (i32, i32)> {
    let set = (0..GLYPH)
        .flat_map(move |y| (0..GLYPH).filter(move |x| glyph[y as usize] >> x & 1 == 1).map(move |x| (x, y)));
    set.flat_map(|(x, y)| {
        (0..SCALE * SCALE).map(move |part| (x * SCALE + part % SCALE, y * SCALE + part / SCALE))
    })
}
