use chrono::{DateTime, Utc};
use entity::TenantId;

/// A tenant with jobs that wait for a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) tenant: TenantId,
    /// Places that the tenant holds, over all processes.
    pub(super) running: i64,
    /// When the first of its waiting jobs became due.
    pub(super) since: DateTime<Utc>,
}

/// The tenant from which the next query continues; `None` for the first tenant. Set only if one query did not cover all
/// tenants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn(pub(super) Option<TenantId>);

/// Divides the free places among the tenants. Each place goes to the tenant that holds the fewest, and among equals to the
/// one that has waited longest. No tenant holds more than `most` returns for it. Tenants that get no place are left out.
pub(super) fn divide(shares: &[Share], places: usize, most: impl Fn(TenantId) -> usize) -> Vec<(TenantId, u64)> {
    let most: Vec<_> = shares.iter().map(|share| i64::try_from(most(share.tenant)).unwrap_or(i64::MAX)).collect();
    let mut given = vec![0; shares.len()];
    for _ in 0..places {
        let held = |index: usize| shares[index].running.saturating_add(given[index]);
        let may_have_more = (0..shares.len()).filter(|index| held(*index) < most[*index]);
        let Some(next) = may_have_more.min_by_key(|index| (held(*index), shares[*index].since)) else { break };
        given[next] += 1;
    }
    let named = shares.iter().zip(given).filter(|(_, given)| *given > 0);
    named.map(|(share, given)| (share.tenant, given.unsigned_abs())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;

    fn share(tenant: u128, running: i64, since: i64) -> Share {
        let since = DateTime::from_timestamp(since, 0).unwrap();
        Share { tenant: TenantId(Uuid::from_u128(tenant)), running, since }
    }

    fn given(shares: &[Share], places: usize) -> Vec<(u128, u64)> {
        divide(shares, places, |_| usize::MAX)
            .into_iter()
            .map(|(tenant, places)| (tenant.0.as_u128(), places))
            .collect()
    }

    #[test]
    fn a_place_goes_to_whoever_has_the_fewest_and_has_waited_longest() {
        assert_eq!(given(&[], 4), []);
        assert_eq!(given(&[share(1, 0, 9)], 4), [(1, 4)]);
        assert_eq!(given(&[share(1, 3, 0), share(2, 0, 9)], 1), [(2, 1)]);
        assert_eq!(given(&[share(1, 3, 0), share(2, 0, 9)], 4), [(1, 1), (2, 3)]);
        assert_eq!(given(&[share(1, 3, 0), share(2, 0, 9)], 7), [(1, 2), (2, 5)]);
        assert_eq!(given(&[share(1, 0, 5), share(2, 0, 4), share(3, 0, 6)], 2), [(1, 1), (2, 1)]);
        assert_eq!(given(&[share(1, i64::MAX, 5), share(2, 0, 6)], 2), [(2, 2)]);
    }

    #[test]
    fn nobody_has_more_than_they_may() {
        let most = |tenant: TenantId| if tenant.0.as_u128() == 1 { 2 } else { 16 };
        let divided =
            |shares: &[Share]| divide(shares, 8, most).into_iter().map(|(_, given)| given).collect::<Vec<_>>();
        assert_eq!(divided(&[share(1, 0, 0)]), [2]);
        assert_eq!(divided(&[share(1, 1, 0), share(2, 0, 9)]), [1, 7]);
        // Other processes may have claimed its jobs while it was alone.
        assert_eq!(divided(&[share(1, 9, 0)]), [0; 0]);
    }
}
