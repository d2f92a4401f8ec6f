//! A mailbox mounted, from the command to scripted POP3 and SMTP servers, as programs see it.

mod inbox;
mod lab;
mod programs;
mod sending;
mod tools;
