//! Queues and policies as an administrator meets them: restores, ownership, privileges, DDL at the same time, maintenance.

mod adopt;
mod common;
mod cron;
mod dashboard;
mod encodings;
mod exporter;
mod maintain;
mod privileges;
mod races;
mod restore;
mod upgrade;
mod warnings;
