//! Compiles the .proto files with protox, so that no protoc is needed.
fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/strandline.proto", "proto/peer.proto"], ["proto"])
        .expect("proto files compile");
    tonic_prost_build::configure()
        .bytes(".")
        // The order of a hash map is another one in each process; what goes over the wire must not be.
        .btree_map(".")
        .codec_path("crate::codec::RoomyCodec")
        .compile_fds(files)
        .expect("generated code");
}
