//! Header maps to copy: to copy a map is quicker than to make it of its fields.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{InvalidHeader, LONGEST, may_be_kept, memo, value_of};
use crate::abi::HeaderView;

/// A hash of the names of `fields`, of their numbers and lengths.
pub(super) fn hash(fields: &[HeaderView<'_>]) -> u64 {
    fields.iter().fold(fields.len() as u64, |hash, field| {
        memo::mix(
            hash,
            u64::from(field.id()) ^ ((field.name().len() as u64) << 16),
        )
    })
}

/// A map to copy. Its names differ from each other.
pub(super) struct Shape {
    map: HeaderMap,
    /// The fields of `map` in their order, as a slice, because a map takes longer to look through.
    fields: Box<[KnownField]>,
}

/// A field of a [`Shape`].
struct KnownField {
    id: u16,
    name: HeaderName,
    /// A value that the field had twice in a row, or an empty one.
    value: HeaderValue,
    /// The hash of the last value that was another one.
    last: u64,
}

impl Shape {
    /// Whether `map`, which was made of `fields`, may be kept: it has each name once, and not too many or too long ones.
    pub(super) fn may_be_kept(map: &HeaderMap, fields: &[HeaderView<'_>]) -> bool {
        let is_short = |field: &HeaderView<'_>| field.name().len() <= LONGEST;
        map.keys_len() == fields.len() && fields.len() <= MOST && fields.iter().all(is_short)
    }

    /// The shape of `map`, which was made of `fields`.
    pub(super) fn new(map: &HeaderMap, fields: &[HeaderView<'_>]) -> Self {
        let field = |(name, field): (&HeaderName, &HeaderView<'_>)| KnownField {
            id: field.id(),
            name: name.clone(),
            value: HeaderValue::from_static(""),
            last: 0,
        };
        let fields: Box<[_]> = map.keys().zip(fields).map(field).collect();
        let mut map = map.clone();
        for (value, known) in map.values_mut().zip(&fields) {
            value.clone_from(&known.value);
        }
        Self { map, fields }
    }

    /// The map that is copied.
    #[cfg(test)]
    pub(super) fn map(&self) -> &HeaderMap {
        &self.map
    }

    /// Makes `map` a copy with the values of `fields`. False when `fields` have other names.
    ///
    /// # Errors
    ///
    /// When HTTP does not allow a value.
    pub(super) fn copy_to(
        &mut self,
        map: &mut HeaderMap,
        fields: &[HeaderView<'_>],
    ) -> Result<bool, InvalidHeader> {
        if self.fields.len() != fields.len() {
            return Ok(false);
        }
        // A bit for each field, of which there are no more: whether it has another value than the one that is kept.
        let mut others = 0_u32;
        for (at, (known, field)) in self.fields.iter().zip(fields).enumerate() {
            if !known.is_name_of(field) {
                return Ok(false);
            }
            let is_other = known.value.as_bytes() != field.value() || field.is_sensitive();
            others |= u32::from(is_other) << at;
        }
        *map = self.map.clone();
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            others &= others - 1;
            let (known, field) = (&mut self.fields[at], &fields[at]);
            let value = value_of(field)?;
            if known.offer(&value, field) {
                self.map.insert(&known.name, value.clone());
            }
            if let Some(place) = map.get_mut(&known.name) {
                *place = value;
            }
        }
        Ok(true)
    }
}

impl KnownField {
    fn is_name_of(&self, field: &HeaderView<'_>) -> bool {
        if self.id != field.id() {
            return false;
        }
        self.id != 0 || self.name.as_str().as_bytes() == field.name()
    }

    /// Offers `value`, that of `field`, which is not the one that is kept. True when it is kept from now on, because
    /// the last offer was the same value.
    fn offer(&mut self, value: &HeaderValue, field: &HeaderView<'_>) -> bool {
        if !may_be_kept(field) {
            return false;
        }
        let hash = memo::hash(value.as_bytes());
        let is_kept = mem::replace(&mut self.last, hash) == hash;
        if is_kept {
            self.value = value.clone();
        }
        is_kept
    }
}

/// Up to how many fields are added to a map that is there sooner than a map is copied.
pub(super) const FEW: usize = 3;

/// How many names a map that is kept may have.
pub(super) const MOST: usize = u32::BITS as usize;
