//! Fast readers for the two answers of a refresh, made once per runtime from its metadata.
//!
//! Decoding by name through metadata looks every type up again for each of 20,000 values, which costs several times what
//! the node needs to answer. A [`MetagraphPlan`] does the looking up once: it walks the type of the answer, finds the
//! wanted fields by name, checks that each has a shape that it can read, and remembers the order. What it skips, it
//! skips through metadata; so runtimes which add, move or re-wrap fields still need no new version of this program.
//!
//! Invariant: for every type that a plan can be made for, it reads what [`RawMetagraph`]'s decoding by name reads (there
//! is a test). For every other type no plan is made, and decoding by name does the work.

use scale_decode::visitor::{IgnoreVisitor, decode_with_visitor};
use scale_info::form::PortableForm;
use scale_info::{PortableRegistry, TypeDef, TypeDefPrimitive};

use crate::queries::{RawAxon, RawMetagraph};

/// Newtypes are unwrapped so deep at most; the chain has two levels.
const WRAPPERS_MAX: usize = 8;

/// Why an answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// The bytes end inside a value.
    #[error("the answer ends inside `{0}`")]
    Short(&'static str),
    /// A number does not fit where it belongs.
    #[error("a number in `{0}` is too large")]
    TooLarge(&'static str),
    /// A tag that its type does not have.
    #[error("`{0}` has a tag that is neither 0 nor 1")]
    Tag(&'static str),
    /// A field that is skipped does not have the form its type promises.
    #[error("a field between those wanted cannot be skipped")]
    Skip,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Compact,
    /// So many bytes, little-endian.
    Fixed(usize),
}

/// A field of the answer that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Tempo,
    LastStep,
    BlocksSinceLastStep,
    Hotkeys,
    Coldkeys,
    Axons,
    Active,
    ValidatorPermit,
    LastUpdate,
    Emission,
    Dividends,
    Incentives,
    Consensus,
    BlockAtRegistration,
    AlphaStake,
    TaoStake,
    TotalStake,
}

/// A field of an axon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AxonField {
    Block,
    Version,
    Ip,
    Port,
    IpType,
    Protocol,
    Other,
}

/// What one field of the answer is, inside its `Option`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Number(Number),
    Numbers(Number),
    Flags,
    Accounts,
    Axons(Vec<(AxonField, Number)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Read(Wanted, Shape),
    /// A field that nobody asked for.
    Skip {
        /// Its type.
        type_id: u32,
        /// Whether that is an `Option`: absent, it is one byte of nought.
        optional: bool,
    },
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct MetagraphPlan {
    steps: Vec<Step>,
}

impl MetagraphPlan {
    /// A plan for answers of this type; `None` where a wanted field has a shape that is not known here.
    pub(crate) fn of(types: &PortableRegistry, answer: u32) -> Option<Self> {
        let inside = option(types, answer)?;
        let TypeDef::Composite(composite) = &types.resolve(inside)?.type_def else { return None };
        let mut steps = Vec::with_capacity(composite.fields.len());
        for field in &composite.fields {
            let wanted = field.name.as_deref().and_then(wanted);
            steps.push(match wanted {
                Some(wanted) => Step::Read(wanted, shape(types, wanted, option(types, field.ty.id)?)?),
                None => Step::Skip { type_id: field.ty.id, optional: option(types, field.ty.id).is_some() },
            });
        }
        Some(Self { steps })
    }

    /// Reads an answer; `None` is the chain's word for a subnet that it does not have.
    pub(crate) fn read(&self, types: &PortableRegistry, bytes: &[u8]) -> Result<Option<RawMetagraph>, PlanError> {
        let mut bytes = Bytes(bytes);
        if !bytes.tag("the answer")? {
            return Ok(None);
        }
        let mut raw = RawMetagraph::default();
        for step in &self.steps {
            match step {
                Step::Read(wanted, shape) => {
                    let name = name(*wanted);
                    if bytes.tag(name)? {
                        read_into(&mut raw, *wanted, shape, &mut bytes, name)?;
                    }
                }
                Step::Skip { optional: true, .. } if bytes.0.first() == Some(&0) => bytes.0 = &bytes.0[1..],
                Step::Skip { type_id, .. } => {
                    decode_with_visitor(&mut bytes.0, *type_id, types, IgnoreVisitor::new())
                        .map_err(|_| PlanError::Skip)?;
                }
            }
        }
        Ok(Some(raw))
    }
}

/// A plan for a list of shares, such as the validators' trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharesPlan(Number);

impl SharesPlan {
    /// A plan for values of this type.
    pub(crate) fn of(types: &PortableRegistry, value: u32) -> Option<Self> {
        number(types, sequence(types, value)?).map(Self)
    }

    /// Reads a value.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<Vec<u16>, PlanError> {
        Bytes(bytes).numbers(self.0, "the validators' trust")
    }
}

const NAMES: [(&str, Wanted); 17] = [
    ("tempo", Wanted::Tempo),
    ("last_step", Wanted::LastStep),
    ("blocks_since_last_step", Wanted::BlocksSinceLastStep),
    ("hotkeys", Wanted::Hotkeys),
    ("coldkeys", Wanted::Coldkeys),
    ("axons", Wanted::Axons),
    ("active", Wanted::Active),
    ("validator_permit", Wanted::ValidatorPermit),
    ("last_update", Wanted::LastUpdate),
    ("emission", Wanted::Emission),
    ("dividends", Wanted::Dividends),
    ("incentives", Wanted::Incentives),
    ("consensus", Wanted::Consensus),
    ("block_at_registration", Wanted::BlockAtRegistration),
    ("alpha_stake", Wanted::AlphaStake),
    ("tao_stake", Wanted::TaoStake),
    ("total_stake", Wanted::TotalStake),
];

fn wanted(name: &str) -> Option<Wanted> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, wanted)| *wanted)
}

fn name(wanted: Wanted) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == wanted).map_or("a field", |(name, _)| name)
}

fn shape(types: &PortableRegistry, wanted: Wanted, type_id: u32) -> Option<Shape> {
    let item = || sequence(types, type_id);
    Some(match wanted {
        Wanted::Tempo | Wanted::LastStep | Wanted::BlocksSinceLastStep => Shape::Number(number(types, type_id)?),
        Wanted::Hotkeys | Wanted::Coldkeys => {
            account(types, item()?)?;
            Shape::Accounts
        }
        Wanted::Active | Wanted::ValidatorPermit => {
            let flag = &types.resolve(item()?)?.type_def;
            matches!(flag, TypeDef::Primitive(TypeDefPrimitive::Bool)).then_some(Shape::Flags)?
        }
        Wanted::Axons => Shape::Axons(axon(types, item()?)?),
        _ => Shape::Numbers(number(types, item()?)?),
    })
}

/// The type inside an `Option`.
fn option(types: &PortableRegistry, type_id: u32) -> Option<u32> {
    let ty = types.resolve(type_id)?;
    let TypeDef::Variant(variant) = &ty.type_def else { return None };
    let [none, some] = &variant.variants[..] else { return None };
    let is_option = ty.path.segments.last().is_some_and(|last| last == "Option")
        && (none.index, none.fields.len(), some.index, some.fields.len()) == (0, 0, 1, 1);
    is_option.then(|| some.fields[0].ty.id)
}

/// The type of the items of a list.
fn sequence(types: &PortableRegistry, type_id: u32) -> Option<u32> {
    match &types.resolve(unwrapped(types, type_id)?)?.type_def {
        TypeDef::Sequence(sequence) => Some(sequence.type_param.id),
        _ => None,
    }
}

/// The type under newtypes.
fn unwrapped(types: &PortableRegistry, mut type_id: u32) -> Option<u32> {
    for _ in 0..WRAPPERS_MAX {
        match &types.resolve(type_id)?.type_def {
            TypeDef::Composite(composite) if composite.fields.len() == 1 => type_id = composite.fields[0].ty.id,
            TypeDef::Tuple(tuple) if tuple.fields.len() == 1 => type_id = tuple.fields[0].id,
            _ => return Some(type_id),
        }
    }
    None
}

fn number(types: &PortableRegistry, type_id: u32) -> Option<Number> {
    let primitive = |type_id: u32| -> Option<usize> {
        match &types.resolve(unwrapped(types, type_id)?)?.type_def {
            TypeDef::Primitive(TypeDefPrimitive::U8) => Some(1),
            TypeDef::Primitive(TypeDefPrimitive::U16) => Some(2),
            TypeDef::Primitive(TypeDefPrimitive::U32) => Some(4),
            TypeDef::Primitive(TypeDefPrimitive::U64) => Some(8),
            TypeDef::Primitive(TypeDefPrimitive::U128) => Some(16),
            _ => None,
        }
    };
    match &types.resolve(unwrapped(types, type_id)?)?.type_def {
        TypeDef::Compact(compact) => {
            // `Compact<u8>` and wider ones are written alike.
            primitive(compact.type_param.id)?;
            Some(Number::Compact)
        }
        _ => primitive(type_id).map(Number::Fixed),
    }
}

fn account(types: &PortableRegistry, type_id: u32) -> Option<()> {
    let TypeDef::Array(array) = &types.resolve(unwrapped(types, type_id)?)?.type_def else { return None };
    (array.len == 32 && number(types, array.type_param.id) == Some(Number::Fixed(1))).then_some(())
}

fn axon(types: &PortableRegistry, type_id: u32) -> Option<Vec<(AxonField, Number)>> {
    let TypeDef::Composite(composite) = &types.resolve(type_id)?.type_def else { return None };
    let field = |field: &scale_info::Field<PortableForm>| {
        let known = match field.name.as_deref()? {
            "block" => AxonField::Block,
            "version" => AxonField::Version,
            "ip" => AxonField::Ip,
            "port" => AxonField::Port,
            "ip_type" => AxonField::IpType,
            "protocol" => AxonField::Protocol,
            _ => AxonField::Other,
        };
        Some((known, number(types, field.ty.id)?))
    };
    let fields: Vec<_> = composite.fields.iter().map(field).collect::<Option<_>>()?;
    // One that is missing is for decoding by name to complain of.
    let has = |wanted: AxonField| fields.iter().any(|(known, _)| *known == wanted);
    let all =
        [AxonField::Block, AxonField::Version, AxonField::Ip, AxonField::Port, AxonField::IpType, AxonField::Protocol];
    all.into_iter().all(has).then_some(fields)
}

fn read_into(
    raw: &mut RawMetagraph,
    wanted: Wanted,
    shape: &Shape,
    bytes: &mut Bytes<'_>,
    name: &'static str,
) -> Result<(), PlanError> {
    match (wanted, shape) {
        (Wanted::Tempo, Shape::Number(number)) => raw.tempo = Some(bytes.number(*number, name)?),
        (Wanted::LastStep, Shape::Number(number)) => raw.last_step = Some(bytes.number(*number, name)?),
        (Wanted::BlocksSinceLastStep, Shape::Number(number)) => {
            raw.blocks_since_last_step = Some(bytes.number(*number, name)?);
        }
        (Wanted::Hotkeys, Shape::Accounts) => raw.hotkeys = Some(bytes.accounts(name)?),
        (Wanted::Coldkeys, Shape::Accounts) => raw.coldkeys = Some(bytes.accounts(name)?),
        (Wanted::Axons, Shape::Axons(fields)) => raw.axons = Some(bytes.axons(fields, name)?),
        (Wanted::Active, Shape::Flags) => raw.active = Some(bytes.flags(name)?),
        (Wanted::ValidatorPermit, Shape::Flags) => raw.validator_permit = Some(bytes.flags(name)?),
        (Wanted::LastUpdate, Shape::Numbers(number)) => raw.last_update = Some(bytes.numbers(*number, name)?),
        (Wanted::Emission, Shape::Numbers(number)) => raw.emission = Some(bytes.numbers(*number, name)?),
        (Wanted::Dividends, Shape::Numbers(number)) => raw.dividends = Some(bytes.numbers(*number, name)?),
        (Wanted::Incentives, Shape::Numbers(number)) => raw.incentives = Some(bytes.numbers(*number, name)?),
        (Wanted::Consensus, Shape::Numbers(number)) => raw.consensus = Some(bytes.numbers(*number, name)?),
        (Wanted::BlockAtRegistration, Shape::Numbers(number)) => {
            raw.block_at_registration = Some(bytes.numbers(*number, name)?);
        }
        (Wanted::AlphaStake, Shape::Numbers(number)) => raw.alpha_stake = Some(bytes.numbers(*number, name)?),
        (Wanted::TaoStake, Shape::Numbers(number)) => raw.tao_stake = Some(bytes.numbers(*number, name)?),
        (Wanted::TotalStake, Shape::Numbers(number)) => raw.total_stake = Some(bytes.numbers(*number, name)?),
        // `shape` gives each field the shape that it has above.
        _ => return Err(PlanError::Skip),
    }
    Ok(())
}

/// The part of an answer that is still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    fn take(&mut self, count: usize, name: &'static str) -> Result<&'a [u8], PlanError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PlanError::Short(name))?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn flag(&mut self, name: &'static str) -> Result<bool, PlanError> {
        match self.take(1, name)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(PlanError::Tag(name)),
        }
    }

    fn tag(&mut self, name: &'static str) -> Result<bool, PlanError> {
        self.flag(name)
    }

    /// Little-endian, up to 16 bytes.
    #[inline]
    fn fixed(&mut self, count: usize, name: &'static str) -> Result<u128, PlanError> {
        let taken = self.take(count, name)?;
        let mut whole = [0; 16];
        whole.get_mut(..count).ok_or(PlanError::TooLarge(name))?.copy_from_slice(taken);
        Ok(u128::from_le_bytes(whole))
    }

    #[inline]
    fn compact(&mut self, name: &'static str) -> Result<u128, PlanError> {
        let first = *self.0.first().ok_or(PlanError::Short(name))?;
        match first & 3 {
            0 => {
                self.0 = &self.0[1..];
                Ok(u128::from(first >> 2))
            }
            1 => Ok(self.fixed(2, name)? >> 2),
            2 => Ok(self.fixed(4, name)? >> 2),
            _ => {
                self.0 = &self.0[1..];
                self.fixed(usize::from(first >> 2) + 4, name)
            }
        }
    }

    #[inline]
    fn number<T: TryFrom<u128>>(&mut self, number: Number, name: &'static str) -> Result<T, PlanError> {
        let value = match number {
            Number::Compact => self.compact(name)?,
            Number::Fixed(count) => self.fixed(count, name)?,
        };
        T::try_from(value).map_err(|_| PlanError::TooLarge(name))
    }

    fn list<T>(
        &mut self,
        name: &'static str,
        item: impl Fn(&mut Self) -> Result<T, PlanError>,
    ) -> Result<Vec<T>, PlanError> {
        let count: usize = self.number(Number::Compact, name)?;
        // A length that lies must not reserve memory: each item takes a byte at least.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn numbers<T: TryFrom<u128>>(&mut self, number: Number, name: &'static str) -> Result<Vec<T>, PlanError> {
        self.list(name, |bytes| bytes.number(number, name))
    }

    fn flags(&mut self, name: &'static str) -> Result<Vec<bool>, PlanError> {
        self.list(name, |bytes| bytes.flag(name))
    }

    fn accounts(&mut self, name: &'static str) -> Result<Vec<[u8; 32]>, PlanError> {
        self.list(name, |bytes| bytes.take(32, name)?.try_into().map_err(|_| PlanError::Short(name)))
    }

    fn axons(&mut self, fields: &[(AxonField, Number)], name: &'static str) -> Result<Vec<RawAxon>, PlanError> {
        self.list(name, |bytes| {
            let mut axon = RawAxon::default();
            for (field, number) in fields {
                match field {
                    AxonField::Block => axon.block = bytes.number(*number, name)?,
                    AxonField::Version => axon.version = bytes.number(*number, name)?,
                    AxonField::Ip => axon.ip = bytes.number(*number, name)?,
                    AxonField::Port => axon.port = bytes.number(*number, name)?,
                    AxonField::IpType => axon.ip_type = bytes.number(*number, name)?,
                    AxonField::Protocol => axon.protocol = bytes.number(*number, name)?,
                    AxonField::Other => drop(bytes.number::<u128>(*number, name)?),
                }
            }
            Ok(axon)
        })
    }
}
