//! The `Content-Disposition` of a download (RFC 6266).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Encodes all but `attr-char` (RFC 8187, section 3.2.1).
const EXT_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Types that browsers display and never execute. Not HTML, SVG, XML, PDF or plain text, which some browsers sniff for HTML.
const INLINE: [&str; 14] = [
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/webm",
];

/// Returns the type without its parameters if a browser may display it inline.
pub(super) fn inline_type(mime_type: &str) -> Option<&'static str> {
    let essence = mime_type.split(';').next().unwrap_or_default().trim();
    INLINE.into_iter().find(|shown| shown.eq_ignore_ascii_case(essence))
}

/// Builds the header: `kind` (`attachment` or `inline`) and the file name, in ASCII for old clients and in full for others.
pub(super) fn header(kind: &str, file_name: &str) -> String {
    let name = shown(file_name);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let header = format!("{kind}; filename=\"{plain}\"");
    if plain == name {
        return header;
    }
    format!("{header}; filename*=UTF-8''{}", utf8_percent_encode(&name, EXT_VALUE))
}

/// Removes control characters and the marks that change the writing direction, by which `gpj.exe` is shown as `exe.jpg`. If
/// only dots and spaces are left, the name is `download`.
fn shown(file_name: &str) -> String {
    let name: String = file_name.chars().filter(|c| !turns_writing(*c) && !c.is_control()).collect();
    match name.trim_matches(['.', ' ']) {
        "" => "download".to_owned(),
        _ => name,
    }
}

/// Unicode's `Bidi_Control`.
const fn turns_writing(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether all clients read the character alike within quotes. Some treat `%` as an escape, some take a path's end as the
/// name.
const fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_header() {
        for (name, expected) in [
            ("reel.mov", "attachment; filename=\"reel.mov\""),
            ("a b; c=d, (e).txt", "attachment; filename=\"a b; c=d, (e).txt\""),
            ("say \"hi\".txt", "attachment; filename=\"say _hi_.txt\"; filename*=UTF-8''say%20%22hi%22.txt"),
            ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
            ("größe.png", "attachment; filename=\"gr__e.png\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.png"),
            ("📦.mov", "attachment; filename=\"_.mov\"; filename*=UTF-8''%F0%9F%93%A6.mov"),
            ("it's*.txt", "attachment; filename=\"it's*.txt\""),
            ("ä's*.txt", "attachment; filename=\"_'s*.txt\"; filename*=UTF-8''%C3%A4%27s%2A.txt"),
            ("a\r\nSet-Cookie: x", "attachment; filename=\"aSet-Cookie: x\""),
            ("invoice\u{202e}gpj.exe", "attachment; filename=\"invoicegpj.exe\""),
            ("\u{200f}..", "attachment; filename=\"download\""),
            ("", "attachment; filename=\"download\""),
        ] {
            let header = header("attachment", name);
            assert_eq!(header, expected, "{name:?}");
            assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{header}");
        }
    }

    #[test]
    fn only_what_cannot_run_is_shown_in_place() {
        for shown in ["image/png", "IMAGE/JPEG", "video/mp4; codecs=\"avc1\""] {
            assert!(inline_type(shown).is_some(), "{shown}");
        }
        for kept in [
            "text/html",
            "image/svg+xml",
            "application/pdf",
            "text/plain",
            "application/xml",
            "text/javascript",
            "image/pngx",
            "application/octet-stream",
            "",
            ";image/png",
        ] {
            assert!(inline_type(kept).is_none(), "{kept}");
        }
    }
}
