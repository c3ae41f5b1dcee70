//! What a session allocates: whatever a call is given, and however little memory there is, it ends in a result or in an
//! error of its own, never in the end of the server.

mod bounds;
mod scarce;
mod sizing;
