//! The words of a page in both languages, side by side.

use super::Language;
use crate::advisories::Severity;
use crate::judgement::Status;

macro_rules! words {
    ($($name:ident: $english:literal, $chinese:literal;)*) => {
        pub(super) struct Words {
            language: Language,
            $(pub $name: &'static str,)*
        }

        impl Words {
            pub(super) fn of(language: Language) -> Self {
                match language {
                    Language::English => Self { language, $($name: $english,)* },
                    Language::Chinese => Self { language, $($name: $chinese,)* },
                }
            }
        }
    };
}

words! {
    code: "en", "zh-CN";
    report: "Scan report", "扫描报告";
    digest: "Digest", "摘要";
    system: "System", "系统";
    none_named: "none is named", "未声明";
    scanned: "Scanned", "扫描时间";
    data: "Advisory data", "漏洞数据";
    advisories: "advisories", "条公告";
    newest: "the newest of", "最新更新于";
    days_old: "days old", "天前";
    unknown_age: "of unknown age", "时间未知";
    not_compared: "Not compared with advisories.", "未与漏洞公告比对。";
    rating: "Rating", "评级";
    not_rated: "Not rated: vulnerabilities and checks are both needed.", "未评级:需要同时具备漏洞比对和合规检查结果。";
    points: "points", "分";
    in_grace: "in their grace period", "项处于宽限期";
    settled: "settled", "项已处置";
    blocker: "Blocker", "阻断项";
    check: "Check", "检查项";
    vulnerability: "Vulnerability", "漏洞";
    vulnerabilities: "Known vulnerabilities", "已知漏洞";
    nothing_found: "None found.", "未发现。";
    severity_label: "Severity", "严重程度";
    score: "Score", "评分";
    package: "Package", "软件包";
    version: "Version", "版本";
    fixed_in: "Fixed in", "修复版本";
    compliance: "Compliance", "合规检查";
    not_checked: "Not checked.", "未检查。";
    result: "Result", "结果";
    evidence: "Evidence", "证据";
    passed: "passed", "通过";
    failed: "failed", "未通过";
    not_applicable: "does not apply", "不适用";
    remedy: "Remedy", "修复建议";
    more: "more", "项未列出";
    until: "until", "有效期至";
    packages: "Packages", "软件包清单";
    kind: "Type", "类型";
    path: "Path", "路径";
    problems: "Not read", "未能读取";
}

impl Words {
    pub(super) fn severity(&self, severity: Severity) -> &'static str {
        match (self.language, severity) {
            (Language::English, severity) => severity.as_str(),
            (Language::Chinese, Severity::Critical) => "危急",
            (Language::Chinese, Severity::High) => "高",
            (Language::Chinese, Severity::Medium) => "中",
            (Language::Chinese, Severity::Low) => "低",
            (Language::Chinese, Severity::None) => "无",
            (Language::Chinese, Severity::Unknown) => "未知",
        }
    }

    pub(super) fn status(&self, status: Status) -> &'static str {
        let (english, chinese) = match status {
            Status::NotAffected => ("not affected", "不受影响"),
            Status::Affected => ("affected", "受影响"),
            Status::Fixed => ("fixed", "已修复"),
            Status::UnderInvestigation => ("under investigation", "调查中"),
            Status::Accepted => ("accepted", "已接受"),
        };
        match self.language {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}
