//! Paginated lists.

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T, P> {
    pub items: Vec<T>,
    /// Where the next page begins: pass it to get that page; `None` on the last page.
    pub next: Option<P>,
}

impl<T, P> Page<T, P> {
    /// Returns the first `limit` rows. The query must request one row more, which shows whether there is a next page.
    pub(crate) fn cut(mut rows: Vec<T>, limit: u64, place: impl FnOnce(&T) -> P) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(place);
        Self { items: rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_next_page_where_there_is_one_row_more() {
        for (rows, limit, items, next) in [(0, 2, 0, None), (2, 2, 2, None), (3, 2, 2, Some(1)), (3, 3, 3, None)] {
            let page = Page::cut((0..rows).collect(), limit, |row: &i32| *row);
            assert_eq!((page.items.len(), page.next), (items, next), "{rows} of {limit}");
        }
    }
}
