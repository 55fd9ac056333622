//! What a request looks like, so that it can be looked through before it is decoded.
//!
//! `kafka-protocol` reserves room for as many elements as an array declares before it reads the first one. A
//! request of a few bytes could so ask for any amount of memory (CVE-2022-34917). [`check`] walks the bytes
//! first, by the [`Shape`] of the request and version, and refuses counts that the bytes left cannot hold, and
//! more elements altogether than [`MAX_ELEMENTS`].
//!
//! Invariant: bytes that [`check`] accepts are decoded field by field along the same path (tagged fields that
//! the decoder knows are walked as what they are, not skipped by their declared size), so no array is decoded
//! that was not counted here. A test encodes every request in every version and compares.

/// Array elements, tagged fields and nested structures that one request may have.
pub const MAX_ELEMENTS: usize = 250_000;

/// What a field is. Lengths are 2 or 4 bytes, or varints plus one in flexible versions.
#[derive(Debug)]
pub enum Kind {
    Fixed(usize),
    /// A string, possibly null.
    Text,
    /// Bytes, possibly null.
    Bytes,
    /// Possibly null.
    Array(&'static Kind),
    Struct(&'static Shape),
    /// A structure behind one byte that says whether it is there.
    Nullable(&'static Shape),
}

/// A field and the versions that have it, both inclusive.
#[derive(Debug)]
pub struct Field {
    pub from: i16,
    pub to: i16,
    pub kind: Kind,
}

/// A tagged field that the decoder knows.
#[derive(Debug)]
pub struct Tag {
    pub number: u32,
    pub from: i16,
    pub kind: Kind,
}

#[derive(Debug)]
pub struct Shape {
    pub fields: &'static [Field],
    pub tags: &'static [Tag],
}

/// The bytes are not a request of this shape, or one beyond the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("the request ends within a field")]
    Truncated,
    #[error("a length or count is negative")]
    Negative,
    #[error("a count is larger than the bytes that are left can hold")]
    Count,
    #[error("the request has more than {MAX_ELEMENTS} elements")]
    Elements,
    #[error("a tagged field does not belong to this version")]
    Tag,
}

/// Walks one request body; the bytes behind it are not looked at.
pub fn check(shape: &Shape, version: i16, flexible: bool, body: &[u8]) -> Result<(), ShapeError> {
    Walk { rest: body, version, flexible, elements: MAX_ELEMENTS }.fields(shape)
}

/// Skips the tagged fields at the end of a flexible request header; answers what is left.
pub fn skip_tags(bytes: &[u8]) -> Result<&[u8], ShapeError> {
    let mut walk = Walk { rest: bytes, version: 0, flexible: true, elements: MAX_ELEMENTS };
    walk.tags(&[])?;
    Ok(walk.rest)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    /// That may still come.
    elements: usize,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, shape: &Shape) -> Result<(), ShapeError> {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| (field.from..=field.to).contains(&version)) {
            self.value(&field.kind)?;
        }
        if self.flexible { self.tags(shape.tags) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(size) => self.take(*size).map(|_| ()),
            Kind::Text => match self.length(2)? {
                Some(len) => self.take(len).map(|_| ()),
                None => Ok(()),
            },
            Kind::Bytes => match self.length(4)? {
                Some(len) => self.take(len).map(|_| ()),
                None => Ok(()),
            },
            Kind::Array(element) => {
                let Some(count) = self.length(4)? else { return Ok(()) };
                if count > self.rest.len() / self.least(element).max(1) {
                    return Err(ShapeError::Count);
                }
                self.spend(count)?;
                (0..count).try_for_each(|_| self.value(element))
            }
            Kind::Struct(shape) => self.fields(shape),
            Kind::Nullable(shape) => match self.take(1)?[0] {
                1 => self.fields(shape),
                _ => Ok(()),
            },
        }
    }

    fn tags(&mut self, known: &[Tag]) -> Result<(), ShapeError> {
        let count = self.varint()? as usize;
        self.spend(count)?;
        for _ in 0..count {
            let (number, size) = (self.varint()?, self.varint()? as usize);
            match known.iter().find(|tag| tag.number == number) {
                Some(tag) if tag.from > self.version => return Err(ShapeError::Tag),
                Some(tag) => self.value(&tag.kind)?,
                None => self.take(size).map(|_| ())?,
            }
        }
        Ok(())
    }

    /// The fewest bytes that a value takes.
    fn least(&self, kind: &Kind) -> usize {
        match kind {
            Kind::Fixed(size) => *size,
            Kind::Nullable(_) => 1,
            Kind::Text | Kind::Bytes | Kind::Array(_) if self.flexible => 1,
            Kind::Text => 2,
            Kind::Bytes | Kind::Array(_) => 4,
            Kind::Struct(shape) => {
                let present = shape.fields.iter().filter(|f| (f.from..=f.to).contains(&self.version));
                present.map(|field| self.least(&field.kind)).sum::<usize>() + usize::from(self.flexible)
            }
        }
    }

    fn spend(&mut self, elements: usize) -> Result<(), ShapeError> {
        self.elements = self.elements.checked_sub(elements).ok_or(ShapeError::Elements)?;
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ShapeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ShapeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length or count; `None` is null. `plain`: its bytes in versions that are not flexible.
    fn length(&mut self, plain: usize) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        let declared = match plain {
            2 => i32::from(i16::from_be_bytes(self.take(2)?.try_into().expect("two bytes"))),
            _ => i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")),
        };
        match declared {
            -1 => Ok(None),
            _ => usize::try_from(declared).map(Some).map_err(|_| ShapeError::Negative),
        }
    }

    /// As the decoder reads it: five bytes at most, whatever bits the last one has beyond.
    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0;
        for i in 0..5 {
            let byte = u32::from(self.take(1)?[0]);
            value |= (byte & 0x7f) << (i * 7);
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: Shape = Shape {
        fields: &[Field { from: 0, to: 9, kind: Kind::Text }, Field { from: 2, to: 9, kind: Kind::Fixed(4) }],
        tags: &[Tag { number: 0, from: 3, kind: Kind::Array(&Kind::Fixed(4)) }],
    };
    const OUTER: Shape =
        Shape { fields: &[Field { from: 0, to: 9, kind: Kind::Array(&Kind::Struct(&INNER)) }], tags: &[] };

    #[test]
    fn a_count_that_the_rest_cannot_hold_is_refused_before_anything_is_reserved() {
        let mut body = 1000i32.to_be_bytes().to_vec();
        body.extend([0; 999]);
        assert_eq!(check(&OUTER, 0, false, &body), Err(ShapeError::Count));
        assert_eq!(check(&OUTER, 0, false, &i32::MAX.to_be_bytes()), Err(ShapeError::Count));
        assert_eq!(check(&OUTER, 0, false, &(-2i32).to_be_bytes()), Err(ShapeError::Negative));
        assert_eq!(check(&OUTER, 0, false, &(-1i32).to_be_bytes()), Ok(()));
    }

    #[test]
    fn the_elements_of_a_request_are_bounded_altogether() {
        let count = MAX_ELEMENTS as i32 + 1;
        let mut body = count.to_be_bytes().to_vec();
        body.resize(4 + count as usize * 2, 0);
        assert_eq!(check(&OUTER, 0, false, &body), Err(ShapeError::Elements));
    }

    #[test]
    fn a_tagged_field_that_the_decoder_knows_is_walked_and_not_skipped() {
        // One element: an empty name, four bytes, one tag 0 that declares one byte and holds two numbers.
        let body = [2, 1, 0, 0, 0, 0, 1, 0, 1, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0];
        assert_eq!(check(&OUTER, 3, true, &body), Ok(()));
        assert_eq!(check(&OUTER, 2, true, &body), Err(ShapeError::Tag));
        // The count inside the tag is looked at, too.
        let body = [2, 1, 0, 0, 0, 0, 1, 0, 1, 200, 1, 0, 0, 0, 1, 0];
        assert_eq!(check(&OUTER, 3, true, &body), Err(ShapeError::Count));
    }
}
