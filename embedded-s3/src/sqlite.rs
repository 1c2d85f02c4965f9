//! Classifies failures of SQLite, for the store's own metadata and for a server that keeps its rows in SQLite too.

/// Why SQLite failed, unless the statement is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another connection has held the lock for longer than the busy timeout: try again.
    Locked,
    /// No space is left on the disk. An exhausted disk quota is [`Trouble::Io`]: SQLite reports it as an I/O error without
    /// its cause.
    Full,
    /// The file or its folder cannot be written.
    ReadOnly,
    /// A read or write failed, or the file cannot be opened.
    Io,
    /// The file is damaged, or is not a SQLite database.
    Corrupt,
}

/// Classifies an error by SQLite's result code, <https://www.sqlite.org/rescode.html>; `None` for any other error, such as
/// a violated constraint.
pub fn trouble(error: &sqlx::Error) -> Option<Trouble> {
    let refused = error.as_database_error()?.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    let code: u32 = sqlx::error::DatabaseError::code(refused)?.parse().ok()?;
    sort(code)
}

fn sort(code: u32) -> Option<Trouble> {
    // SQLITE_IOERR_SHMSIZE: the file with the index of the WAL cannot grow.
    if code == 4874 {
        return Some(Trouble::Full);
    }
    // The low byte of an extended code is its primary one.
    match code & 0xff {
        5 | 6 | 15 => Some(Trouble::Locked), // BUSY, LOCKED, PROTOCOL
        13 => Some(Trouble::Full),           // FULL
        3 | 8 => Some(Trouble::ReadOnly),    // PERM, READONLY
        9 | 10 | 14 => Some(Trouble::Io),    // INTERRUPT, IOERR, CANTOPEN
        11 | 26 => Some(Trouble::Corrupt),   // CORRUPT, NOTADB
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        for (code, trouble) in [
            (5, Some(Trouble::Locked)),
            (517, Some(Trouble::Locked)), // BUSY_SNAPSHOT
            (13, Some(Trouble::Full)),
            (4874, Some(Trouble::Full)),
            (8, Some(Trouble::ReadOnly)),
            (1032, Some(Trouble::ReadOnly)), // READONLY_DBMOVED
            (778, Some(Trouble::Io)),        // IOERR_WRITE
            (14, Some(Trouble::Io)),
            (11, Some(Trouble::Corrupt)),
            (267, Some(Trouble::Corrupt)), // CORRUPT_VTAB
            (26, Some(Trouble::Corrupt)),
            (1, None),
            (2067, None), // CONSTRAINT_UNIQUE
        ] {
            assert_eq!(sort(code), trouble, "{code}");
        }
    }
}
