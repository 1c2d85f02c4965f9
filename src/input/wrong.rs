use std::fmt;

/// How an input breaks a rule. The reason is data; [`fmt::Display`] is the text of the native API and the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Empty,
    TooLong {
        chars_max: usize,
    },
    /// The compact JSON of an object is too long.
    TooManyBytes {
        bytes_max: usize,
    },
    ControlCharacter,
    /// `/` or `\` in a file's name.
    Slash,
    /// U+0000 in an object.
    Nul,
    NotAscii,
    NotPrintableAscii {
        chars_max: usize,
    },
    NotAMediaType,
    NotASha256,
    NotASlug,
    NotABucketName,
    NotStatuses,
    FileTooSmall {
        bytes: u64,
        least: u64,
    },
    FileTooLarge {
        bytes: u64,
        most: u64,
    },
    /// The token holds no brand, or several, so one must be named.
    BrandRequired,
    UnknownBrand,
    /// An operator belongs to no tenant, so one must be named.
    TenantRequired,
    /// An earlier file of the batch has the same reference.
    DuplicateReference,
    /// The session has the parts 1 to `total`.
    NoSuchPart {
        total: i32,
    },
    /// The range of parts ends before it begins.
    EmptyRange,
    /// A number must be 1 to `most` seconds.
    Seconds {
        most: u64,
    },
    YearsOutOfRange,
    /// A span must be 1 to `most` days.
    Days {
        days: i64,
        most: u64,
    },
    /// The tenant exists with another bucket.
    AnotherBucket,
    /// `more` further errors are only counted.
    MoreErrors {
        more: usize,
    },
}

impl Wrong {
    /// Stable, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "too-short",
            Self::TooLong { .. } | Self::TooManyBytes { .. } => "too-long",
            Self::ControlCharacter | Self::Slash | Self::Nul | Self::NotAscii | Self::NotPrintableAscii { .. } => {
                "invalid-character"
            }
            Self::NotAMediaType | Self::NotASha256 | Self::NotASlug | Self::NotABucketName | Self::NotStatuses => {
                "invalid-format"
            }
            Self::FileTooSmall { .. } => "file-too-small",
            Self::FileTooLarge { .. } => "file-too-large",
            Self::BrandRequired | Self::TenantRequired => "required",
            Self::UnknownBrand => "unknown-brand",
            Self::DuplicateReference => "duplicate-reference",
            Self::NoSuchPart { .. }
            | Self::EmptyRange
            | Self::Seconds { .. }
            | Self::YearsOutOfRange
            | Self::Days { .. } => "out-of-range",
            Self::AnotherBucket => "conflict",
            Self::MoreErrors { .. } => "more-errors",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { chars_max } => write!(f, "must be at most {chars_max} characters"),
            Self::TooManyBytes { bytes_max } => write!(f, "must be at most {bytes_max} bytes as JSON"),
            Self::ControlCharacter => f.write_str("must not contain control characters"),
            Self::Slash => f.write_str("must not contain / or \\"),
            Self::Nul => f.write_str("must not contain U+0000"),
            Self::NotAscii => f.write_str("must be ASCII"),
            Self::NotPrintableAscii { chars_max } => {
                write!(f, "must be 1 to {chars_max} printable ASCII characters")
            }
            Self::NotAMediaType => f.write_str("must be a media type such as image/png"),
            Self::NotASha256 => f.write_str("must be 64 hex digits"),
            Self::NotASlug => f.write_str("must be 1 to 63 characters of a-z, 0-9 and inner hyphens"),
            Self::NotABucketName => f.write_str(
                "must be 3 to 63 characters of a-z, 0-9, inner hyphens and single inner dots, not an IP address, and not \
                 starting with xn--",
            ),
            Self::NotStatuses => f.write_str("must be names of states, separated by commas"),
            Self::FileTooSmall { bytes, least } => write!(f, "the file is {bytes} bytes; the minimum is {least}"),
            Self::FileTooLarge { bytes, most } => write!(f, "the file is {bytes} bytes; the limit is {most}"),
            Self::BrandRequired => f.write_str("is required, because the token does not hold exactly one brand"),
            Self::UnknownBrand => f.write_str("the tenant has no brand with this id"),
            Self::TenantRequired => {
                f.write_str("is required for an operator, who belongs to no tenant: name it by slug or id")
            }
            Self::DuplicateReference => f.write_str("an earlier file of this batch has the same client_reference"),
            Self::NoSuchPart { total } => write!(f, "must be a part of this session, 1 to {total}"),
            Self::EmptyRange => f.write_str("must not be less than `from`"),
            Self::Seconds { most } => write!(f, "must be from 1 to {most} seconds"),
            Self::YearsOutOfRange => f.write_str("must be within the years 1970 to 9998"),
            Self::Days { days, most } => write!(f, "the span is {days} days; it must be 1 to {most} days"),
            Self::AnotherBucket => f.write_str("the tenant already exists with a different bucket"),
            Self::MoreErrors { more } => write!(f, "{more} more errors are not listed"),
        }
    }
}

impl std::error::Error for Wrong {}
