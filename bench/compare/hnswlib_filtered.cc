/* SPDX-License-Identifier: Apache-2.0
 *
 * hnswlib_filtered.cc: hnswlib's own C++ search with its filter callback, driven by compare_filtered.py. Through its
 * Python interface a filter is a Python function, called for each node: that would measure Python.
 *
 *     hnswlib_filtered l2|ip DIM K INDEX QUERIES OUT
 *
 * QUERIES: rows of DIM floats. Then a line in, a line out:
 *     filter PATH      a file with a bit per label, bit i of byte i / 8 from the lowest on          -> ok
 *     search EF COUNT  the first COUNT queries, one thread; K labels (-1: none) each go to OUT      -> seconds
 *
 * Needs hnswlib 0.7 or later, the first with BaseFilterFunctor.
 */
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <hnswlib/hnswlib.h>

namespace {

std::vector<char> read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return std::vector<char>(std::istreambuf_iterator<char>(file), {});
}

class Bits final : public hnswlib::BaseFilterFunctor {
  public:
    void read(const std::string &path) { bytes_ = read_file(path); }
    bool operator()(hnswlib::labeltype label) override {
        return label / 8 < bytes_.size() && (static_cast<unsigned char>(bytes_[label / 8]) >> (label % 8) & 1) != 0;
    }

  private:
    std::vector<char> bytes_;
};

/* The labels that come out are written behind each other, nearest first. */
double search(hnswlib::HierarchicalNSW<float> &graph, Bits &bits, const std::vector<char> &queries, size_t dim,
              size_t k, size_t count, std::vector<int64_t> &out) {
    const float *rows = reinterpret_cast<const float *>(queries.data());
    out.assign(count * k, -1);
    const auto start = std::chrono::steady_clock::now();
    for (size_t q = 0; q < count; q++) {
        auto found = graph.searchKnn(rows + q * dim, k, &bits);
        for (size_t i = found.size(); i > 0; i--, found.pop())
            out[q * k + i - 1] = static_cast<int64_t>(found.top().second);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void serve(char **words) {
    const std::string space_name = words[1];
    const size_t dim = std::stoul(words[2]), k = std::stoul(words[3]);
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    if (space_name == "l2")
        space.reset(new hnswlib::L2Space(dim));
    else
        space.reset(new hnswlib::InnerProductSpace(dim));
    hnswlib::HierarchicalNSW<float> graph(space.get(), words[4]);
    const std::vector<char> queries = read_file(words[5]);
    const size_t all = queries.size() / (dim * sizeof(float));
    std::vector<int64_t> labels;
    Bits bits;
    std::cout << "ok" << std::endl;
    for (std::string word; std::cin >> word;) {
        if (word == "filter") {
            std::string path;
            std::cin >> path;
            bits.read(path);
            std::cout << "ok" << std::endl;
        } else if (word == "search") {
            size_t ef, count;
            std::cin >> ef >> count;
            if (!std::cin || count > all) throw std::runtime_error("search: more queries than there are");
            graph.setEf(ef);
            const double seconds = search(graph, bits, queries, dim, k, count, labels);
            std::ofstream file(words[6], std::ios::binary);
            file.write(reinterpret_cast<const char *>(labels.data()),
                       static_cast<std::streamsize>(labels.size() * sizeof labels[0]));
            file.close();
            if (!file) throw std::runtime_error(std::string(words[6]) + ": cannot be written");
            std::cout << seconds << std::endl;
        } else {
            throw std::runtime_error(word + ": neither filter nor search");
        }
    }
}

} // namespace

int main(int argc, char **argv) {
    try {
        if (argc != 7) throw std::runtime_error("usage: l2|ip DIM K INDEX QUERIES OUT");
        serve(argv);
    } catch (const std::exception &error) {
        std::cerr << "hnswlib_filtered: " << error.what() << std::endl;
        return 1;
    }
    return 0;
}
