//! The header fields of requests as maps: to copy a map is quicker than to make it, and clients send the
//! same fields again and again.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    headers::{InvalidHeader, add_known, is_sensitive, may_be_kept, value_of},
    memo::{self, Met},
};
use crate::abi::Header;

/// Makes `map`, which is empty, that of the fields that the other side lent.
///
/// A thread keeps some maps, by their names, and for each name the value that it had.
///
/// # Errors
///
/// A name or value that HTTP does not allow is an error, by its name.
///
/// # Safety
///
/// What the fields borrow is valid until this returns.
pub(crate) unsafe fn fill_map(
    map: &mut HeaderMap,
    fields: &[Header],
    met: Option<&mut Met>,
) -> Result<(), InvalidHeader> {
    let Some(met) = met else {
        // SAFETY: the caller says so.
        return unsafe { add_known(map, fields, None) };
    };
    if fields.len() <= FEW {
        // They are added to a map that is there sooner than one of them is copied.
        mem::swap(map, &mut met.room);
        // SAFETY: the caller says so.
        return unsafe { add_known(map, fields, Some(met)) };
    }
    // SAFETY: the caller says so.
    if let Some(copy) = unsafe { recall(met, fields) } {
        *map = copy?;
        return Ok(());
    }
    map.reserve(fields.len());
    // SAFETY: the caller says so.
    unsafe { add_known(map, fields, Some(met)) }?;
    if map.keys_len() == fields.len() && fields.len() <= MOST {
        met.shapes.meet(hash(fields), || Shape::new(map, fields));
    }
    Ok(())
}

/// The map of fields with names that are remembered.
///
/// # Safety
///
/// What the fields borrow is valid until this returns.
unsafe fn recall(met: &mut Met, fields: &[Header]) -> Option<Result<HeaderMap, InvalidHeader>> {
    let shape = met.shapes.get_mut(hash(fields))?;
    // SAFETY: the caller says so.
    unsafe { shape.copy(fields) }.transpose()
}

/// Keeps the room that a map has, for one with a few fields.
pub(crate) fn keep_room(mut map: HeaderMap) {
    if (1..=MOST).contains(&map.capacity()) {
        memo::lend(|met| {
            // Room that nobody took is as good.
            if met.room.capacity() == 0 {
                map.clear();
                met.room = map;
            }
        });
    }
}

fn hash(fields: &[Header]) -> u64 {
    fields.iter().fold(fields.len() as u64, |hash, field| {
        memo::mix(hash, u64::from(field.id) ^ ((field.name.len as u64) << 16))
    })
}

/// A map to copy: names that differ from each other, in their order.
pub(super) struct Shape {
    /// Each with a value that it had twice in a row, or an empty one.
    map: HeaderMap,
    fields: Box<[Field]>,
}

/// What is known of a field.
struct Field {
    id: u16,
    /// Some when there is no number.
    name: Option<HeaderName>,
    /// The hash of the last value that was not the kept one.
    met: u64,
}

impl Shape {
    fn new(map: &HeaderMap, fields: &[Header]) -> Self {
        let field = |(name, field): (&HeaderName, &Header)| Field {
            id: field.id,
            name: (field.id == 0).then(|| name.clone()),
            met: 0,
        };
        let fields = map.keys().zip(fields).map(field).collect();
        let mut map = map.clone();
        map.values_mut()
            .for_each(|value| *value = HeaderValue::from_static(""));
        Self { map, fields }
    }

    /// The map of `fields`; none when they have other names.
    ///
    /// # Safety
    ///
    /// What the fields borrow is valid until this returns.
    unsafe fn copy(&mut self, fields: &[Header]) -> Result<Option<HeaderMap>, InvalidHeader> {
        if self.fields.len() != fields.len() {
            return Ok(None);
        }
        let mut learn = false;
        let mut map = self.map.clone();
        let values = map.values_mut().zip(&mut self.fields);
        for ((value, known), field) in values.zip(fields) {
            // SAFETY: the caller says so.
            if !unsafe { known.is_name_of(field) } {
                return Ok(None);
            }
            // SAFETY: as above.
            let bytes = unsafe { field.value.bytes() };
            if value.as_bytes() != bytes || is_sensitive(field) {
                // SAFETY: the caller says so.
                learn |= unsafe { known.meet(field) };
                // SAFETY: as above.
                *value = unsafe { value_of(field) }?;
            }
        }
        if learn {
            self.learn(fields, &map);
        }
        Ok(Some(map))
    }

    /// Keeps the values of `map`, which is that of `fields`, where they were met before.
    fn learn(&mut self, fields: &[Header], map: &HeaderMap) {
        let values = self.map.values_mut().zip(map.values());
        for ((kept, value), (met, field)) in values.zip(self.fields.iter().zip(fields)) {
            if may_be_kept(field) && met.met == memo::hash(value.as_bytes()) {
                kept.clone_from(value);
            }
        }
    }
}

impl Field {
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn is_name_of(&self, field: &Header) -> bool {
        let is_it = |name: &HeaderName| {
            // SAFETY: the caller says so.
            name.as_str().as_bytes() == unsafe { field.name.bytes() }
        };
        self.id == field.id && self.name.as_ref().is_none_or(is_it)
    }

    /// A value was met that is not kept. Whether it may be kept now.
    ///
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn meet(&mut self, field: &Header) -> bool {
        if !may_be_kept(field) {
            return false;
        }
        // SAFETY: the caller says so.
        let hash = memo::hash(unsafe { field.value.bytes() });
        mem::replace(&mut self.met, hash) == hash
    }
}

/// Up to how many fields are few.
const FEW: usize = 3;

/// How many names a map that is remembered may have.
const MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crossing::HeaderFields;

    fn crossed(map: &HeaderMap) -> HeaderMap {
        let fields = HeaderFields::new(map);
        // SAFETY: `map` is still there.
        let fields = unsafe { fields.as_abi().fields() };
        let mut crossed = HeaderMap::new();
        // SAFETY: as above.
        memo::with(|met| unsafe { fill_map(&mut crossed, fields, met) }).unwrap();
        crossed
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

    #[test]
    fn what_comes_twice_is_kept_but_no_secret() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("authorization", "hush"),
            ("cookie", "hush"),
            ("x-key", "hush"),
            ("x-one", "1"),
        ] {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(name == "x-key");
            map.append(name, value);
        }
        for _ in 0..4 {
            assert_eq!(crossed(&map), map);
        }
        let fields = HeaderFields::new(&map);
        // SAFETY: `map` is still there.
        let hash = hash(unsafe { fields.as_abi().fields() });
        let kept = memo::lend(|met| met.shapes.get(hash).map(|shape| shape.map.clone()));
        let kept = kept.flatten().unwrap();
        let values: Vec<_> = kept.values().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"a"[..], b"", b"", b"", b"1"]);
    }
}
