use std::collections::{BTreeMap, HashSet};

use entity::{BrandId, TenantId, tenant};
use serde_json::{Map, Value};

use super::rows;
use crate::action::{Action, ids, made};
use crate::database::Snapshot;
use crate::engine::Engine;
use crate::error::Result;
use crate::tenant::rows as tenants;

const ACTIONS_AT_ONCE: u64 = 1_000;
const TENANTS_AT_ONCE: u64 = 500;

/// Recomputes the chain of all actions, and compares each tenant with the actions on it. Returns the number of actions.
/// Calls `tell` with each finding and the tenant that it concerns.
///
/// Keeps the recorded state of every tenant in memory. Reads a page at a time, and before each page of tenants the actions
/// recorded since.
pub(super) async fn check(engine: &Engine, tell: &mut impl FnMut(Option<TenantId>, String)) -> Result<u64> {
    let mut record = Record::default();
    while record.read_on(engine, &engine.db.snapshot().await?, tell).await? {}
    let mut after = None;
    loop {
        let at = engine.db.snapshot().await?;
        while record.read_on(engine, &at, tell).await? {}
        let page = tenants::after(at.conn(), after, TENANTS_AT_ONCE).await?;
        after = page.last().map(|last| last.id);
        for tenant in &page {
            record.check_tenant(&at, tenant, tell).await?;
        }
        if (page.len() as u64) < TENANTS_AT_ONCE {
            break;
        }
    }
    let at = engine.db.snapshot().await?;
    while record.read_on(engine, &at, tell).await? {}
    // A tenant created meanwhile may sort among the pages already read.
    let others: Vec<TenantId> = record.tenants.keys().filter(|id| !record.checked.contains(id)).copied().collect();
    for id in others {
        match tenants::find(at.conn(), id).await? {
            Some(tenant) => record.check_tenant(&at, &tenant, tell).await?,
            None => tell(Some(id), "the tenant was created, but its row is gone".to_owned()),
        }
    }
    if let Some(what) = record.chain.wrong_with_end(rows::end_of_actions(&at).await?) {
        tell(None, what);
    }
    let (there, read) = (rows::count_actions(&at).await?, record.read);
    if there != read {
        tell(None, format!("there are {there} actions, but only {read} different numbers"));
    }
    Ok(read)
}

/// The actions read so far.
#[derive(Default)]
struct Record {
    chain: Chain,
    /// The number of the last action read.
    after: Option<i64>,
    read: u64,
    /// The state of each tenant according to the actions.
    tenants: BTreeMap<TenantId, Map<String, Value>>,
    checked: HashSet<TenantId>,
}

impl Record {
    /// Reads the next page. Returns `false` after the last page.
    async fn read_on(
        &mut self,
        engine: &Engine,
        at: &Snapshot,
        tell: &mut impl FnMut(Option<TenantId>, String),
    ) -> Result<bool> {
        let page = rows::actions_after(at, self.after, ACTIONS_AT_ONCE).await?;
        self.after = page.last().map(|last| last.seq).or(self.after);
        self.read += page.len() as u64;
        let more = page.len() as u64 == ACTIONS_AT_ONCE;
        for action in page {
            if let Some(what) = self.chain.wrong_with(engine, &action) {
                tell(action.tenant_id, what);
            }
            if let Some(tenant) = action.tenant_id {
                follow(self.tenants.entry(tenant).or_default(), &action);
            }
        }
        Ok(more)
    }

    /// Compares a tenant with the actions on it up to the same snapshot.
    async fn check_tenant(
        &mut self,
        at: &Snapshot,
        tenant: &tenant::Model,
        tell: &mut impl FnMut(Option<TenantId>, String),
    ) -> Result<()> {
        self.checked.insert(tenant.id);
        let mut tell = |what| tell(Some(tenant.id), what);
        let brands = tenants::all_brands(at.conn(), tenant.id).await?;
        check_tenant(tenant, &brands, self.tenants.get(&tenant.id), &mut tell);
        if !tenants::are_shares_right(at.conn(), tenant).await? {
            tell("the tenant's usage rows do not match whether the tenant is limited".to_owned());
        }
        Ok(())
    }
}

/// The chain so far.
#[derive(Default)]
struct Chain {
    head: Vec<u8>,
    seq: i64,
    /// A finding was reported. Later actions are followed, but no longer checked.
    is_broken: bool,
}

impl Chain {
    fn wrong_with(&mut self, engine: &Engine, action: &Action) -> Option<String> {
        if self.is_broken {
            return None;
        }
        let seq = self.seq + 1;
        let link = engine.keys.action(&self.head, action);
        let wrong = if action.seq < seq {
            Some(format!("there is an action with number {}, which was never assigned", action.seq))
        } else if action.seq > seq {
            Some(format!("action {seq} is missing; the next one is number {}", action.seq))
        } else if link.mac != action.mac {
            Some(format!("action {seq} is not as it was recorded, or was recorded with another key"))
        } else {
            None
        };
        (self.head, self.seq, self.is_broken) = (link.head, seq, wrong.is_some());
        wrong
    }

    fn wrong_with_end(&self, end: Option<(i64, Vec<u8>)>) -> Option<String> {
        match end {
            None => Some("the end of the chain of actions is missing".to_owned()),
            _ if self.is_broken => None,
            Some((last, _)) if last != self.seq => {
                Some(format!("there were {last} actions, and {} are left", self.seq))
            }
            Some((_, head)) if head != self.head => {
                Some("the chain of actions does not end where it should".to_owned())
            }
            Some(_) => None,
        }
    }
}

/// Applies an action to the recorded state of a tenant.
fn follow(tenant: &mut Map<String, Value>, action: &Action) {
    for (name, value) in action.details.as_object().into_iter().flatten() {
        match (tenant.get_mut(name), value) {
            // Brands are added to those that are there.
            (Some(Value::Object(before)), Value::Object(more)) => {
                before.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            _ => {
                tenant.insert(name.clone(), value.clone());
            }
        }
    }
}

fn check_tenant(
    tenant: &tenant::Model,
    brands: &[(String, BrandId)],
    was: Option<&Map<String, Value>>,
    tell: &mut impl FnMut(String),
) {
    let Some(was) = was else {
        return tell("no action records that the tenant was created".to_owned());
    };
    let mut now = made(tenant);
    now.insert("brands".to_owned(), ids(brands));
    for (name, value) in now {
        if was.get(&name) != Some(&value) {
            tell(format!("the tenant's {name} is not what it was last set to"));
        }
    }
}
