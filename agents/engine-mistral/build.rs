//! Lists the demo model's files, so that they become part of the program. A checkout without them still
//! builds; loading the demo model then says that it is missing.

use std::{env, error::Error, fmt::Write, fs, path::Path};

const FOLDER: &str = "demo-model/assay-demo";
/// The GGUF copies of the model are for tests and stay outside the program.
const EMBEDDED: [&str; 3] = ["json", "jinja", "safetensors"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(FOLDER);
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_file() && EMBEDDED.contains(&extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut code = String::from("static FILES: &[(&str, &[u8])] = &[\n");
    for path in files {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // Without the checkout's own path: another checkout may share the folder of build outputs.
        let file = format!("/{FOLDER}/{name}");
        let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?})");
        writeln!(code, "    ({name:?}, include_bytes!({path})),")?;
    }
    code.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("demo_files.rs"), code)?;
    // `cargo::` lines on standard output are how a build script speaks.
    #[allow(clippy::print_stdout)]
    {
        println!("cargo::rerun-if-changed=build.rs");
        println!("cargo::rerun-if-changed={FOLDER}");
    }
    Ok(())
}
