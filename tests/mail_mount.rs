//! A mailbox mounted, from the command to scripted POP3 and SMTP servers, as programs see it.

mod crash;
mod direct;
mod doctor;
mod hostile;
mod inbox;
mod lab;
mod programs;
mod reports;
mod sending;
mod tools;
