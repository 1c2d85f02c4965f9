use entity::operator_action::Model;

use super::{Act, rows};
use crate::caller::Actor;
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::Result;

/// Records an operator's action in the transaction that performs it. Must come last in it: until the commit, no other
/// transaction can record an action.
pub(crate) async fn record(engine: &Engine, tx: &Tx, actor: &Actor, act: Act) -> Result<()> {
    let chain = rows::take_turn(tx).await?;
    let action = Model {
        seq: chain.last_seq + 1,
        at: engine.clock.now(),
        actor: actor.name().to_owned(),
        actor_kind: Some(actor.kind()),
        action: act.name.to_owned(),
        tenant_id: act.tenant,
        details: act.details,
        mac: Vec::new(),
    };
    let link = engine.keys.action(&chain.head, &action);
    rows::end_turn(tx, action.seq, link.head).await?;
    rows::insert(tx, Model { mac: link.mac, ..action }).await
}
