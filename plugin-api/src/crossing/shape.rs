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
/// A thread keeps some maps, by their names, and for each name the value that it had. Maps with many
/// names, or long ones, are not kept: a client chooses how many bytes they are.
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
    if let Some(shape) = met.shapes.get_mut(hash(fields)) {
        // SAFETY: the caller says so.
        if unsafe { shape.copy_to(map, fields) }? {
            return Ok(());
        }
    }
    map.reserve(fields.len());
    // SAFETY: the caller says so.
    unsafe { add_known(map, fields, Some(met)) }?;
    if map.keys_len() == fields.len() && fields.len() <= MOST && are_short(fields) {
        met.shapes.meet(hash(fields), || Shape::new(map, fields));
    }
    Ok(())
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

/// Whether the names may stay, all of them.
fn are_short(fields: &[Header]) -> bool {
    fields.iter().all(|field| field.name.len <= memo::LONGEST)
}

fn hash(fields: &[Header]) -> u64 {
    fields.iter().fold(fields.len() as u64, |hash, field| {
        memo::mix(hash, u64::from(field.id) ^ ((field.name.len as u64) << 16))
    })
}

/// A map to copy: names that differ from each other, in their order.
pub(super) struct Shape {
    map: HeaderMap,
    /// Those of the map, which takes longer to look through.
    fields: Box<[Field]>,
}

/// What is known of a field.
struct Field {
    id: u16,
    name: HeaderName,
    /// One that it had twice in a row, or an empty one.
    value: HeaderValue,
    /// The hash of the last value that was not the kept one.
    met: u64,
}

impl Shape {
    fn new(map: &HeaderMap, fields: &[Header]) -> Self {
        let field = |(name, field): (&HeaderName, &Header)| Field {
            id: field.id,
            name: name.clone(),
            value: HeaderValue::from_static(""),
            met: 0,
        };
        let fields: Box<[_]> = map.keys().zip(fields).map(field).collect();
        let mut map = map.clone();
        for (value, known) in map.values_mut().zip(&fields) {
            value.clone_from(&known.value);
        }
        Self { map, fields }
    }

    /// Makes `map` that of `fields`, unless they have other names.
    ///
    /// # Errors
    ///
    /// As for [`fill_map`].
    ///
    /// # Safety
    ///
    /// What the fields borrow is valid until this returns.
    unsafe fn copy_to(
        &mut self,
        map: &mut HeaderMap,
        fields: &[Header],
    ) -> Result<bool, InvalidHeader> {
        if self.fields.len() != fields.len() {
            return Ok(false);
        }
        // Which of them have other values; there are no more than this has bits.
        let mut others = 0_u32;
        for (at, (known, field)) in self.fields.iter().zip(fields).enumerate() {
            // SAFETY: the caller says so.
            if !unsafe { known.is_name_of(field) } {
                return Ok(false);
            }
            // SAFETY: as above.
            let value = unsafe { field.value.bytes() };
            others |= u32::from(known.value.as_bytes() != value || is_sensitive(field)) << at;
        }
        *map = self.map.clone();
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            others &= others - 1;
            let (known, field) = (&mut self.fields[at], &fields[at]);
            // SAFETY: the caller says so.
            let value = unsafe { value_of(field) }?;
            // SAFETY: the caller says so.
            if unsafe { known.meet(&value, field) } {
                self.map.insert(&known.name, value.clone());
            }
            if let Some(place) = map.get_mut(&known.name) {
                *place = value;
            }
        }
        Ok(true)
    }
}

impl Field {
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn is_name_of(&self, field: &Header) -> bool {
        if self.id != field.id {
            return false;
        }
        // SAFETY: the caller says so.
        self.id != 0 || self.name.as_str().as_bytes() == unsafe { field.name.bytes() }
    }

    /// Whether `value`, which is that of `field` and not the kept one, is kept from now on: it was the
    /// last one as well.
    ///
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn meet(&mut self, value: &HeaderValue, field: &Header) -> bool {
        // SAFETY: the caller says so.
        if !unsafe { may_be_kept(field) } {
            return false;
        }
        let hash = memo::hash(value.as_bytes());
        let is_met = mem::replace(&mut self.met, hash) == hash;
        if is_met {
            self.value = value.clone();
        }
        is_met
    }
}

/// Up to how many fields are few.
const FEW: usize = 3;

/// How many names a map that is remembered may have.
const MOST: usize = u32::BITS as usize;

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

    #[test]
    fn maps_with_long_names_cross_and_are_not_kept() {
        for (len, is_kept) in [
            (memo::LONGEST, true),
            (memo::LONGEST + 1, false),
            (1024, false),
        ] {
            let mut map = HeaderMap::new();
            for name in ["a", "b", "c", &"d".repeat(len)] {
                let name: HeaderName = name.parse().unwrap();
                map.append(name, HeaderValue::from_static("1"));
            }
            for _ in 0..4 {
                assert_eq!(crossed(&map), map);
            }
            let fields = HeaderFields::new(&map);
            // SAFETY: `map` is still there.
            let hash = hash(unsafe { fields.as_abi().fields() });
            let kept = memo::lend(|met| met.shapes.get(hash).is_some());
            assert_eq!(kept, Some(is_kept), "{len}");
        }
    }

    #[test]
    fn a_kept_value_that_is_a_secret_now_crosses_as_one_in_each_place() {
        let mut map: HeaderMap = (0..MOST)
            .map(|at| {
                let name: HeaderName = format!("x-{at}").parse().unwrap();
                (name, HeaderValue::from_static("same"))
            })
            .collect();
        for _ in 0..4 {
            assert_eq!(crossed(&map), map);
        }
        for at in 0..MOST {
            let name = format!("x-{at}");
            map.get_mut(&name).unwrap().set_sensitive(true);
            let crossed = crossed(&map);
            let secrets = crossed.iter().filter(|(_, value)| value.is_sensitive());
            let secrets: Vec<_> = secrets.map(|(name, _)| name.as_str()).collect();
            assert_eq!(secrets, [name.as_str()]);
            map.get_mut(&name).unwrap().set_sensitive(false);
        }
        assert!(crossed(&map).values().all(|value| !value.is_sensitive()));
    }
}
