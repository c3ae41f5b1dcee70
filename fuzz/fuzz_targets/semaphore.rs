#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| enough_fuzz::semaphore::run(data));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("this target needs a nightly compiler: cargo +nightly fuzz run semaphore");
    std::process::exit(1);
}
