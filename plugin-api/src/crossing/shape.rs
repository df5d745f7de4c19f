//! Maps of header fields by their names: to copy one is quicker than to make it, and clients send the
//! same fields again and again.

use std::mem;

use http::{HeaderMap, HeaderValue};

use super::memo;
use crate::abi::Header;

/// A map to copy: names that differ from each other, in their order, without values.
pub(super) struct Shape {
    map: HeaderMap,
    ids: Box<[u16]>,
}

/// What there is for a map of these fields.
pub(super) enum Room {
    /// A map of their names, which were met before, without values.
    Known(HeaderMap),
    /// An empty map.
    Empty(HeaderMap),
}

/// What there is for a map of these fields. A few are added to a map that is there sooner than one of
/// them is copied.
///
/// # Safety
///
/// What the fields borrow is valid until this returns.
pub(super) unsafe fn room(fields: &[Header]) -> Room {
    let room = memo::lend(|met| {
        if fields.len() <= FEW {
            return Some(Room::Empty(mem::take(&mut met.room)));
        }
        let shape = met.shapes.get(hash(fields))?;
        // SAFETY: the caller says so.
        unsafe { shape.is_of(fields) }.then(|| Room::Known(shape.map.clone()))
    });
    room.flatten()
        .unwrap_or_else(|| Room::Empty(HeaderMap::with_capacity(fields.len())))
}

/// Keeps the room that a map has, for one with a few fields.
pub(crate) fn keep_room(mut map: HeaderMap) {
    if (1..=MOST).contains(&map.capacity()) {
        map.clear();
        memo::lend(|met| met.room = map);
    }
}

/// Remembers the names of `map`, which was made of these fields.
pub(super) fn meet(fields: &[Header], map: &HeaderMap) {
    if map.keys_len() == fields.len() && (FEW + 1..=MOST).contains(&fields.len()) {
        memo::lend(|met| met.shapes.meet(hash(fields), || Shape::new(map, fields)));
    }
}

fn hash(fields: &[Header]) -> u64 {
    fields.iter().fold(fields.len() as u64, |hash, field| {
        memo::mix(hash, u64::from(field.id) ^ ((field.name.len as u64) << 16))
    })
}

impl Shape {
    fn new(map: &HeaderMap, fields: &[Header]) -> Self {
        let mut map = map.clone();
        map.values_mut()
            .for_each(|value| *value = HeaderValue::from_static(""));
        Self {
            map,
            ids: fields.iter().map(|field| field.id).collect(),
        }
    }

    /// # Safety
    ///
    /// What the fields borrow is valid until this returns.
    unsafe fn is_of(&self, fields: &[Header]) -> bool {
        let is_name = |(name, field): (&http::HeaderName, &Header)| {
            // SAFETY: the caller says so.
            field.id != 0 || unsafe { field.name.bytes() } == name.as_str().as_bytes()
        };
        fields
            .iter()
            .map(|field| field.id)
            .eq(self.ids.iter().copied())
            && self.map.keys().zip(fields).all(is_name)
    }
}

/// Up to how many fields are few.
const FEW: usize = 3;

/// How many names a map that is remembered may have.
const MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crossing::{HeaderFields, Texts};

    fn crossed(map: &HeaderMap) -> HeaderMap {
        let fields = HeaderFields::new(map);
        // SAFETY: `map` is still there.
        let mut texts = unsafe { Texts::new(fields.as_abi(), &[]) };
        // SAFETY: as above.
        unsafe { texts.fields(fields.as_abi()) }.unwrap()
    }

    #[test]
    fn fields_cross_the_same_however_often() {
        let maps = [
            &[
                ("host", "a"),
                ("accept", "*/*"),
                ("te", "x"),
                ("x-one", "1"),
            ][..],
            &[("host", "b"), ("accept", ""), ("te", "y"), ("x-one", "2")],
            // Of names with the same lengths.
            &[("host", "b"), ("accept", "c"), ("te", "z"), ("x-two", "2")],
            &[("te", "z"), ("accept", "c"), ("host", "b"), ("x-two", "2")],
            &[("host", "a"), ("x-one", "1")],
            &[("set-cookie", "a=1"), ("set-cookie", "b=2")],
            &[],
        ];
        for _ in 0..3 {
            for fields in maps {
                let mut map = HeaderMap::new();
                for (name, value) in fields {
                    map.append(*name, HeaderValue::from_static(value));
                }
                let crossed = crossed(&map);
                let in_order = |map: &HeaderMap| format!("{map:?}");
                assert_eq!(in_order(&crossed), in_order(&map));
                keep_room(crossed);
            }
        }
    }
}
