//! Templates of header maps: cloning a map is faster than inserting its fields one by one.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{InvalidHeader, MAX_CACHED_LEN, fixed_table, is_cacheable, value_of};
use crate::abi::HeaderView;

/// Returns a hash of the names of `fields`: of their count, their numbers and their lengths.
pub(super) fn hash(fields: &[HeaderView<'_>]) -> u64 {
    fields.iter().fold(fields.len() as u64, |hash, field| {
        fixed_table::mix(
            hash,
            u64::from(field.id()) ^ ((field.name().len() as u64) << 16),
        )
    })
}

/// A header map from which new maps are cloned. Each name occurs once.
///
/// The template stores a value only if the field had this value twice in a row. Such a value is cloned with the map,
/// and only the other values are created for each request or response.
pub(super) struct HeaderTemplate {
    map: HeaderMap,
    /// The fields of `map` in the same order. A slice, because iterating over a map is slower.
    fields: Box<[TemplateField]>,
}

/// A field of a [`HeaderTemplate`].
struct TemplateField {
    /// The number of the name, or 0.
    id: u16,
    name: HeaderName,
    /// The value in the template's map; empty if no value is stored.
    value: HeaderValue,
    /// The hash of the last value that was offered and that differed from `value`.
    last_offer: u64,
}

impl HeaderTemplate {
    /// Returns whether `map`, which was created from `fields`, can become a template: each name occurs once, there are
    /// at most [`MAX_FIELDS`] names, and no name is too long.
    pub(super) fn is_cacheable(map: &HeaderMap, fields: &[HeaderView<'_>]) -> bool {
        let is_short = |field: &HeaderView<'_>| field.name().len() <= MAX_CACHED_LEN;
        map.keys_len() == fields.len() && fields.len() <= MAX_FIELDS && fields.iter().all(is_short)
    }

    /// Creates a template without values from `map`, which was created from `fields`.
    pub(super) fn new(map: &HeaderMap, fields: &[HeaderView<'_>]) -> Self {
        let field = |(name, field): (&HeaderName, &HeaderView<'_>)| TemplateField {
            id: field.id(),
            name: name.clone(),
            value: HeaderValue::from_static(""),
            last_offer: 0,
        };
        // `map` has as many names as `fields` has fields, and both are in the same order.
        let fields: Box<[_]> = map.keys().zip(fields).map(field).collect();
        let mut map = map.clone();
        // The values are removed, because they may be secrets, and the template only stores values that repeat.
        for (value, field) in map.values_mut().zip(&fields) {
            value.clone_from(&field.value);
        }
        Self { map, fields }
    }

    /// Returns the map of the template.
    #[cfg(test)]
    pub(super) fn map(&self) -> &HeaderMap {
        &self.map
    }

    /// Replaces `map` by a clone of the template with the values of `fields`. Returns `false`, and does not change
    /// `map`, if `fields` have other names than the template.
    ///
    /// # Errors
    ///
    /// Returns an error if HTTP does not allow a value.
    pub(super) fn copy_to(
        &mut self,
        map: &mut HeaderMap,
        fields: &[HeaderView<'_>],
    ) -> Result<bool, InvalidHeader> {
        if self.fields.len() != fields.len() {
            return Ok(false);
        }
        // Bit n is set if field n has another value than the template. `MAX_FIELDS` is the number of bits. All names
        // are compared before the map is cloned, because the clone is useless if a name differs.
        let mut changed = 0_u32;
        for (index, (known, field)) in self.fields.iter().zip(fields).enumerate() {
            if !known.has_name_of(field) {
                return Ok(false);
            }
            // A sensitive value is set even if its bytes are equal, because the value in the template is not marked as
            // sensitive.
            let is_changed = known.value.as_bytes() != field.value() || field.is_sensitive();
            changed |= u32::from(is_changed) << index;
        }
        *map = self.map.clone();
        while changed != 0 {
            let index = changed.trailing_zeros() as usize;
            // Clears the lowest bit that is set.
            changed &= changed - 1;
            let (known, field) = (&mut self.fields[index], &fields[index]);
            let value = value_of(field)?;
            if known.offer(&value, field) {
                self.map.insert(&known.name, value.clone());
            }
            if let Some(entry) = map.get_mut(&known.name) {
                *entry = value;
            }
        }
        Ok(true)
    }
}

impl TemplateField {
    /// Returns whether `field` has the name of this field.
    fn has_name_of(&self, field: &HeaderView<'_>) -> bool {
        if self.id != field.id() {
            return false;
        }
        // Equal numbers other than 0 mean equal names, so only names without a number are compared as text.
        self.id != 0 || self.name.as_str().as_bytes() == field.name()
    }

    /// Offers `value`, the new value of `field`. Stores the value and returns `true` if the value may be cached and the
    /// last offer had the same hash.
    fn offer(&mut self, value: &HeaderValue, field: &HeaderView<'_>) -> bool {
        if !is_cacheable(field) {
            return false;
        }
        let hash = fixed_table::hash(value.as_bytes());
        let is_repeated = mem::replace(&mut self.last_offer, hash) == hash;
        if is_repeated {
            self.value = value.clone();
        }
        is_repeated
    }
}

/// Up to this number of fields, adding the fields to an empty map is faster than cloning a template.
pub(super) const MAX_FIELDS_WITHOUT_TEMPLATE: usize = 3;

/// The maximum number of fields of a template: [`HeaderTemplate::copy_to`] has one bit for each field.
pub(super) const MAX_FIELDS: usize = u32::BITS as usize;
