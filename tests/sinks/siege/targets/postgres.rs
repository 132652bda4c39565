//! `postgres`: a table without a primary key, so that a record that is there twice is seen, and with a check.

use std::path::Path;

use super::super::target::{Found, LONG, PASSWORD, REFUSED, Target};
use crate::sinks::postgres::server::Cluster;
use crate::sinks::support::proxy::Proxy;

pub(crate) struct Postgres {
    cluster: Cluster,
    database: String,
    proxy: Proxy,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let cluster = Cluster::new();
        let database = cluster.database();
        cluster.sql(
            &database,
            &format!(
                "CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}';
                 GRANT CREATE ON SCHEMA public TO locked;
                 CREATE TABLE events (
                     journal uuid NOT NULL, entry_offset bigint NOT NULL, record_index integer NOT NULL, client text NOT NULL,
                     epoch bigint NOT NULL, seq numeric(20) NOT NULL, channel integer NOT NULL, received_at timestamptz NOT NULL,
                     payload bytea CHECK (position('{REFUSED}'::bytea in payload) = 0 OR length(payload) <= {LONG}));
                 CREATE INDEX ON events (journal, entry_offset, record_index);
                 ALTER TABLE events OWNER TO locked;"
            ),
        );
        let proxy = Proxy::to(cluster.address());
        Self { cluster, database, proxy }
    }
}

impl Target for Postgres {
    fn sink(&self, password: &Path) -> String {
        let (address, database, password) = (self.proxy.address(), &self.database, password.display());
        format!(
            "type = \"postgres\"\nurl = \"postgres://locked@{address}/{database}\"\ntable = \"events\"\n\
             password = {{ file = \"{password}\" }}\n"
        )
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn kill(&mut self) {
        self.cluster.crash();
    }

    fn start(&mut self) {
        self.cluster.start();
    }

    fn found(&mut self, _expected: usize) -> Vec<Found> {
        let columns = "entry_offset, record_index, client, epoch, seq, encode(payload, 'hex')";
        let rows = self.cluster.sql(&self.database, &format!("SELECT {columns} FROM events"));
        rows.iter().map(|row| parse(row)).collect()
    }
}

fn parse(row: &str) -> Found {
    let columns: Vec<&str> = row.split('|').collect();
    let number = |n: usize| columns[n].parse::<u64>().expect("a number");
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).expect("digits"), 16).expect("digits");
    Found {
        offset: number(0),
        index: number(1),
        client: u64::from_str_radix(columns[2], 16).expect("16 hexadecimal digits"),
        epoch: u32::try_from(number(3)).expect("an epoch"),
        seq: number(4),
        payload: columns[5].as_bytes().chunks(2).map(byte).collect(),
    }
}
