//! Compiles the .proto file with protox, so that no protoc is needed.
fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/raft.proto"], ["proto"]).expect("proto files compile");
    tonic_prost_build::configure().bytes(".").compile_fds(files).expect("generated code");
}
