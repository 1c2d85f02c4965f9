use std::collections::BTreeMap;

use entity::{BrandId, TenantId, tenant};
use serde_json::{Map, Value, json};

use super::act::{ids, limits};
use super::{Action, rows};
use crate::database::Snapshot;
use crate::engine::Engine;
use crate::error::Result;
use crate::tenant::rows as tenants;

const ACTIONS_AT_ONCE: u64 = 1_000;
const TENANTS_AT_ONCE: u64 = 500;

/// What the record of actions does not explain.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) tenant: Option<TenantId>,
    /// For people.
    pub(crate) what: String,
}

/// Computes the chain of all actions anew, and compares the tenants with what was done to them. Answers how many actions
/// there are; `tell` is called for each thing that is wrong.
///
/// Needs memory for what each tenant was made to be.
pub(crate) async fn check(engine: &Engine, at: &Snapshot, tell: &mut impl FnMut(Told)) -> Result<u64> {
    let mut head = Vec::new();
    let mut seq = 0;
    let mut made: BTreeMap<TenantId, Map<String, Value>> = BTreeMap::new();
    loop {
        let page = rows::after(at, seq, ACTIONS_AT_ONCE).await?;
        let more = page.len() as u64 == ACTIONS_AT_ONCE;
        for action in page {
            seq += 1;
            let wrong = |what: String| Told { tenant: action.tenant_id, what };
            if action.seq != seq {
                tell(wrong(format!("action {seq} is missing; the next one is number {}", action.seq)));
                return Ok(count(seq - 1));
            }
            let link = engine.keys.action(&head, &action);
            if link.mac != action.mac {
                tell(wrong(format!("action {seq} is not as it was recorded, or was recorded with another key")));
                return Ok(count(seq - 1));
            }
            head = link.head;
            if let Some(tenant) = action.tenant_id {
                follow(made.entry(tenant).or_default(), &action);
            }
        }
        if !more {
            break;
        }
    }
    let chain = rows::chain(at).await?;
    if chain.last_seq != seq {
        let what = format!("there were {} actions, and {seq} are recorded", chain.last_seq);
        tell(Told { tenant: None, what });
    } else if chain.head != head {
        tell(Told { tenant: None, what: "the chain of actions does not end where it should".to_owned() });
    }
    check_tenants(at, made, tell).await?;
    Ok(count(seq))
}

fn count(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or_default()
}

/// Makes of a tenant what the action made of it.
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

async fn check_tenants(
    at: &Snapshot,
    mut made: BTreeMap<TenantId, Map<String, Value>>,
    tell: &mut impl FnMut(Told),
) -> Result<()> {
    let mut after = None;
    loop {
        let page = tenants::after(at.conn(), after, TENANTS_AT_ONCE).await?;
        let more = page.last().filter(|_| page.len() as u64 == TENANTS_AT_ONCE).map(|last| last.id);
        for tenant in page {
            let brands = tenants::all_brands(at.conn(), tenant.id).await?;
            check_tenant(&tenant, &brands, made.remove(&tenant.id), tell);
        }
        match more {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    for tenant in made.into_keys() {
        tell(Told { tenant: Some(tenant), what: "the tenant was made, and is gone".to_owned() });
    }
    Ok(())
}

fn check_tenant(
    tenant: &tenant::Model,
    brands: &[(String, BrandId)],
    was: Option<Map<String, Value>>,
    tell: &mut impl FnMut(Told),
) {
    let mut wrong = |what: String| tell(Told { tenant: Some(tenant.id), what });
    let Some(was) = was else {
        return wrong("nobody is recorded to have made the tenant".to_owned());
    };
    let mut now = limits(tenant);
    now["slug"] = json!(tenant.slug);
    now["bucket"] = json!(tenant.bucket);
    now["brands"] = ids(brands);
    for (name, value) in now.as_object().into_iter().flatten() {
        // A tenant begins without limits.
        if was.get(name).unwrap_or(&Value::Null) != value {
            wrong(format!("the tenant's {name} is not what it was last set to"));
        }
    }
}
