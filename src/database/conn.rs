//! Runs statements on a connection of one of the pools, once it is the caller's turn.

use std::sync::Arc;

use entity::TenantId;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement,
};

use super::postgres;
use crate::turns::{FairQueue, Party, Permit};

/// Runs single statements, each on any free connection of its pool.
#[derive(Clone, Debug)]
pub struct Conn {
    pool: Pool,
    /// A statement passes all of these in order before it gets a connection of the pool.
    turns: Vec<Arc<FairQueue>>,
    party: Party,
}

#[derive(Clone, Debug)]
pub(super) enum Pool {
    Sqlite(DatabaseConnection),
    Postgres(postgres::Pool),
}

/// The places that one statement or transaction holds in its [`FairQueue`].
pub(super) type Places = Vec<Permit>;

impl Conn {
    pub(super) fn new(pool: Pool, turns: Arc<FairQueue>) -> Self {
        Self { pool, turns: vec![turns], party: None }
    }

    /// Returns the same with these turns to pass before its own.
    pub(super) fn behind(&self, turns: Arc<FairQueue>) -> Self {
        Self { turns: std::iter::once(turns).chain(self.turns.iter().cloned()).collect(), ..self.clone() }
    }

    /// Returns the same on behalf of a tenant: if others ask as well, tenants take turns. Without a tenant the server itself
    /// asks.
    pub fn of(&self, tenant: TenantId) -> Self {
        Self { party: Some(tenant), ..self.clone() }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the pool alone, without turns and without limits: for migrations, and for tests that inspect its
    /// connections.
    pub fn bare(&self) -> DatabaseConnection {
        match &self.pool {
            Pool::Sqlite(pool) => pool.clone(),
            Pool::Postgres(pool) => pool.bare(),
        }
    }

    /// Waits for the caller's turn.
    pub(super) async fn enter(&self) -> Result<Places, DbErr> {
        let mut places = Vec::with_capacity(self.turns.len());
        for turns in &self.turns {
            let place = turns.enter(self.party).await;
            places.push(place.ok_or(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?);
        }
        Ok(places)
    }
}

#[async_trait]
impl ConnectionTrait for Conn {
    fn get_database_backend(&self) -> DbBackend {
        match &self.pool {
            Pool::Sqlite(pool) => pool.get_database_backend(),
            Pool::Postgres(pool) => pool.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let _places = self.enter().await?;
        match &self.pool {
            Pool::Sqlite(pool) => pool.execute_raw(statement).await,
            Pool::Postgres(pool) => pool.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let _places = self.enter().await?;
        match &self.pool {
            Pool::Sqlite(pool) => pool.execute_unprepared(sql).await,
            Pool::Postgres(pool) => pool.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let _places = self.enter().await?;
        match &self.pool {
            Pool::Sqlite(pool) => pool.query_one_raw(statement).await,
            Pool::Postgres(pool) => pool.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let _places = self.enter().await?;
        match &self.pool {
            Pool::Sqlite(pool) => pool.query_all_raw(statement).await,
            Pool::Postgres(pool) => pool.query_all_raw(statement).await,
        }
    }
}

/// Runs the statements of one transaction.
#[derive(Debug)]
pub struct InTransaction(pub(super) Begun);

#[derive(Debug)]
pub(super) enum Begun {
    Sqlite(DatabaseTransaction),
    Postgres(postgres::Transaction),
}

impl InTransaction {
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self.0 {
            Begun::Sqlite(tx) => tx.commit().await,
            Begun::Postgres(tx) => tx.commit().await,
        }
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        match self.0 {
            Begun::Sqlite(tx) => tx.rollback().await,
            Begun::Postgres(tx) => tx.rollback().await,
        }
    }
}

#[async_trait]
impl ConnectionTrait for InTransaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Begun::Sqlite(tx) => tx.get_database_backend(),
            Begun::Postgres(tx) => tx.get_database_backend(),
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Begun::Sqlite(tx) => tx.execute_raw(statement).await,
            Begun::Postgres(tx) => tx.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Begun::Sqlite(tx) => tx.execute_unprepared(sql).await,
            Begun::Postgres(tx) => tx.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.0 {
            Begun::Sqlite(tx) => tx.query_one_raw(statement).await,
            Begun::Postgres(tx) => tx.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.0 {
            Begun::Sqlite(tx) => tx.query_all_raw(statement).await,
            Begun::Postgres(tx) => tx.query_all_raw(statement).await,
        }
    }
}
