//! Writes a descriptor as the .proto file that it came from. Types have their full names, which are
//! long but mean the same everywhere.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// The text of this file.
pub fn of(file: &FileDescriptorProto) -> String {
    let mut text = Text { lines: String::new(), depth: 0 };
    text.line("// Copyright Envoy Project Authors and others, Apache-2.0. Written by `cargo xtask bless`.");
    text.line(&format!("syntax = \"{}\";", if file.syntax() == "proto3" { "proto3" } else { "proto2" }));
    text.line(&format!("package {};", file.package()));
    for import in &file.dependency {
        text.line(&format!("import \"{import}\";"));
    }
    for item in &file.enum_type {
        text.item(item);
    }
    for message in &file.message_type {
        text.message(message, file.syntax() == "proto3");
    }
    text.lines
}

/// Full names of the types that a file declares, with the leading dot of descriptors.
pub fn declared(file: &FileDescriptorProto) -> Vec<String> {
    fn below(message: &DescriptorProto, path: &str, names: &mut Vec<String>) {
        let path = format!("{path}.{}", message.name());
        names.extend(message.enum_type.iter().map(|item| format!("{path}.{}", item.name())));
        for inner in &message.nested_type {
            below(inner, &path, names);
        }
        names.push(path);
    }
    let package = format!(".{}", file.package());
    let mut names: Vec<String> = file.enum_type.iter().map(|item| format!("{package}.{}", item.name())).collect();
    for message in &file.message_type {
        below(message, &package, &mut names);
    }
    names
}

/// Full names of the types that a file's fields have.
pub fn named(file: &FileDescriptorProto) -> Vec<String> {
    fn below(message: &DescriptorProto, names: &mut Vec<String>) {
        names.extend(message.field.iter().filter_map(|field| field.type_name.clone()));
        message.nested_type.iter().for_each(|inner| below(inner, names));
    }
    let mut names = Vec::new();
    file.message_type.iter().for_each(|message| below(message, &mut names));
    names
}

struct Text {
    lines: String,
    depth: usize,
}

// === impl Text ===

impl Text {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.lines, "{:width$}{line}", "", width = self.depth * 2);
    }

    fn block(&mut self, opening: &str, inside: impl FnOnce(&mut Self)) {
        self.line(&format!("{opening} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
    }

    fn item(&mut self, item: &EnumDescriptorProto) {
        self.block(&format!("enum {}", item.name()), |text| {
            for value in &item.value {
                text.line(&format!("{} = {};", value.name(), value.number()));
            }
        });
    }

    fn message(&mut self, message: &DescriptorProto, proto3: bool) {
        self.block(&format!("message {}", message.name()), |text| {
            for item in &message.enum_type {
                text.item(item);
            }
            for inner in message.nested_type.iter().filter(|inner| !is_map(inner)) {
                text.message(inner, proto3);
            }
            let mut fields = message.field.iter().peekable();
            while let Some(field) = fields.next() {
                let Some(group) = field.oneof_index.filter(|_| !field.proto3_optional()) else {
                    text.line(&one(field, message, proto3));
                    continue;
                };
                let name = usize::try_from(group).ok().and_then(|group| message.oneof_decl.get(group));
                text.block(&format!("oneof {}", name.unwrap().name()), |text| {
                    text.line(&one(field, message, proto3));
                    while let Some(field) = fields.next_if(|field| field.oneof_index == Some(group)) {
                        text.line(&one(field, message, proto3));
                    }
                });
            }
        });
    }
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The line of one field.
fn one(field: &FieldDescriptorProto, message: &DescriptorProto, proto3: bool) -> String {
    let entry = message
        .nested_type
        .iter()
        .filter(|inner| is_map(inner))
        .find(|inner| field.type_name().rsplit('.').next() == Some(inner.name()));
    let kind = match entry.map(|entry| entry.field.as_slice()) {
        Some([key, value]) => format!("map<{}, {}>", kind(key), kind(value)),
        _ => kind(field),
    };
    let label = match field.label() {
        Label::Repeated if entry.is_none() => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() || (!proto3 && field.oneof_index.is_none()) => "optional ",
        _ => "",
    };
    format!("{label}{kind} {} = {};", field.name(), field.number())
}

/// As a .proto file writes it: TYPE_UINT32 is uint32.
fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().to_owned(),
        Type::Group => panic!("{}: groups are not known here", field.name()),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}
